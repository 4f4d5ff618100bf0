"""Weights that come with the package."""

import pytest
import torch

from ghostnets import create_model
from ghostnets.checkpoints import EMBEDDED_WEIGHTS, embedded_weights, read_checkpoint
from ghostnets.errors import CheckpointError


@pytest.mark.parametrize("name", EMBEDDED_WEIGHTS)
def test_embedded_weights_are_a_finite_backbone_of_at_most_8_mb(name: str):
    path = embedded_weights(name)
    checkpoint = read_checkpoint(path)
    assert checkpoint.architecture == name
    assert checkpoint.arguments["num_classes"] == 0
    assert path.stat().st_size <= 8_000_000
    assert (path.parent / "README.md").is_file()


def test_create_model_loads_embedded_weights_and_keeps_a_random_classifier():
    stored = read_checkpoint(embedded_weights("ghostnet_100")).state_dict
    model = create_model("ghostnet_100", pretrained="embedded", num_classes=7)
    state = model.state_dict()
    assert all(torch.equal(state[key], tensor.float()) for key, tensor in stored.items() if tensor.is_floating_point())
    assert state["classifier.weight"].shape == (7, 1280)
    assert state.keys() - stored.keys() == {"classifier.weight", "classifier.bias"}
    assert state["conv_stem.weight"].dtype == torch.float32


def test_embedded_weights_serve_as_backbone():
    backbone = create_model("ghostnet_100", pretrained="embedded", features_only=True).eval()
    maps = backbone(torch.rand(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps][-1][1:] == (2, 2)
    stem = read_checkpoint(embedded_weights("ghostnet_100")).state_dict["conv_stem.weight"]
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], stem.float())


def test_networks_without_embedded_weights_are_rejected():
    with pytest.raises(CheckpointError, match=r"no weights of ghostnet_050 are embedded; .* ghostnet_100"):
        create_model("ghostnet_050", pretrained="embedded")
