"""load_checkpoint: networks and names, files and the hub, with and without replace_head."""

from pathlib import Path

import pytest
import torch
from graphs import EVERY_GRAPH
from huggingface_hub import PyTorchModelHubMixin
from local_server import hub_fixture, server_fixture  # noqa: F401
from safetensors.torch import save, save_file

from ghostnets.checkpoints import Checkpoint, detect_source, load_checkpoint, read_checkpoint, save_checkpoint
from ghostnets.errors import CheckpointError, UnknownNameError
from ghostnets.models import GGhostRegNet, GhostNet, create_model, model_arguments
from ghostnets.models.ghost_resnet import CIFAR_SPEC
from ghostnets.models.ghostnet import STAGES
from ghostnets.preprocessing import Preprocessing


def equal(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    state, expected = model.state_dict(), other.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("name", EVERY_GRAPH)
def test_load_checkpoint_for_every_network(tmp_path: Path, name: str):
    small = {"width": 0.2, "widths": (8, 16, 24, 32), "group_width": 4}  # the names are those of the full size
    size = {argument: value for argument, value in small.items() if argument in model_arguments(name)}
    original = create_model(name, num_classes=3, **size)
    assert detect_source(original.state_dict()) == ("d_li14" if "d_li14" in name else "canonical")
    save_file(original.state_dict(), tmp_path / "x.safetensors")
    model = create_model(name, num_classes=3, **size)
    assert load_checkpoint(model, tmp_path / "x.safetensors") is model
    assert equal(model, original)
    # What another number of classes changes, and nothing else, is what replace_head leaves alone.
    other, state = create_model(name, num_classes=5, **size), original.state_dict()
    with pytest.raises(CheckpointError, match=r"of another shape.* or pass replace_head=True"):
        load_checkpoint(other, tmp_path / "x.safetensors")
    load_checkpoint(other, tmp_path / "x.safetensors", replace_head=True)
    loaded = {key for key, tensor in other.state_dict().items() if torch.equal(tensor, state[key])}
    assert {key for key, tensor in other.state_dict().items() if tensor.shape == state[key].shape} == loaded
    assert 0 < len(state) - len(loaded) <= 2


def test_official_g_ghost_file(tmp_path: Path):
    """It has the names of this package (tests/models/test_g_ghost.py), possibly wrapped by DataParallel."""
    original = GGhostRegNet(num_classes=4, depths=(1, 1, 4, 3), widths=(8, 16, 24, 32), group_width=4)
    state = original.state_dict()
    assert "layer3.base.conv1.weight" in state
    # As PyTorch's ImageNet example, which that implementation follows, saves a network of several devices.
    state = {f"module.{key}": tensor for key, tensor in state.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "g_ghost_regnet.pth")
    model = GGhostRegNet(num_classes=4, depths=(1, 1, 4, 3), widths=(8, 16, 24, 32), group_width=4)
    assert equal(load_checkpoint(model, tmp_path / "g_ghost_regnet.pth"), original)
    smaller = GGhostRegNet(num_classes=2, depths=(1, 1, 4, 3), widths=(8, 16, 24, 32), group_width=4)
    with pytest.raises(CheckpointError, match=r"fc\.weight .* or pass replace_head=True"):
        load_checkpoint(smaller, tmp_path / "g_ghost_regnet.pth")
    before = smaller.fc.weight.clone()
    load_checkpoint(smaller, tmp_path / "g_ghost_regnet.pth", replace_head=True)
    assert torch.equal(smaller.fc.weight, before)
    assert torch.equal(smaller.conv1.weight, original.conv1.weight)


def test_name_builds_network_with_classes_of_file(tmp_path: Path):
    original = create_model("ghostnet_050", num_classes=3)
    torch.save(original.state_dict(), tmp_path / "x.pth")
    model = load_checkpoint("ghostnet_050", tmp_path / "x.pth")
    assert equal(model, original)
    assert not model.training
    with pytest.raises(UnknownNameError, match="did you mean ghostnet_050"):
        load_checkpoint("ghostnet_05", tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        load_checkpoint("ghostnet_130", tmp_path / "x.pth")
    state = original.state_dict()
    for broken in (torch.zeros(0, 1280), torch.zeros(())):
        torch.save({**state, "classifier.weight": broken}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=r"has no matrix classifier\.weight"):
            load_checkpoint("ghostnet_050", tmp_path / "x.pth")


def test_name_builds_network_with_stored_arguments(tmp_path: Path):
    arguments = {"num_classes": 2, "in_chans": 1, "width": 0.1, "small_input": True}
    original = create_model("ghostnet_050", **arguments).eval()
    checkpoint = Checkpoint(
        "ghostnet_050", arguments, original.state_dict(), ("cat", "dog"), Preprocessing.standard(24, 1)
    )
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    model, x = load_checkpoint("ghostnet_050", tmp_path / "own.safetensors"), torch.randn(1, 1, 24, 24)
    assert torch.equal(model(x), original(x))  # small_input changes a stride, which no weight would give away
    with pytest.raises(CheckpointError, match=r"is a checkpoint of ghostnet_050, not of ghostnet_100; load it"):
        load_checkpoint("ghostnet_100", tmp_path / "own.safetensors")


def test_replace_head_keeps_own_classifier(tmp_path: Path, randomize):
    original = randomize(create_model("ghostnet_100_d_li14", num_classes=6))
    torch.save(original.state_dict(), tmp_path / "port.pth")
    for model in (create_model("ghostnet_100", num_classes=4), create_model("ghostnet_100", num_classes=0)):
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with pytest.raises(
            CheckpointError, match=r"classifier.*replace_head=True to keep the network's own classifier"
        ):
            load_checkpoint(model, tmp_path / "port.pth")
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        load_checkpoint(model, tmp_path / "port.pth", replace_head=True)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[key]) == (key.startswith("classifier.") or "num_batches" in key), key
    state = original.state_dict()
    state.pop("features.3.conv.0.primary_conv.1.weight")
    torch.save(state, tmp_path / "port.pth")
    with pytest.raises(CheckpointError, match="1 missing"):
        load_checkpoint(create_model("ghostnet_100", num_classes=4), tmp_path / "port.pth", replace_head=True)


def test_load_checkpoint_from_hub(local_hub):
    original = create_model("ghostnet_050", num_classes=3)
    local_hub.content = save(original.state_dict())
    assert equal(load_checkpoint("ghostnet_050", "hf://somebody/small"), original)
    assert {path for _, path, _ in local_hub.requests} == {"/somebody/small/resolve/main/model.safetensors"}
    with pytest.raises(CheckpointError, match="there is no checkpoint hf:"):
        load_checkpoint("ghostnet_050", Path("hf://somebody/small"))  # a path is a path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ghostnet_050", {"stages": STAGES[:4], "width": 0.1}),
        ("ghost_resnet20", {"spec": CIFAR_SPEC, "depths": (1, 1)}),
    ],
)
def test_checkpoint_keeps_own_stages(name: str, options: dict, tmp_path: Path):
    arguments = {"num_classes": 2, **options}
    original = create_model(name, **arguments)
    checkpoint = Checkpoint(name, arguments, original.state_dict(), ("a", "b"), Preprocessing.standard(32, 3))
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    assert equal(read_checkpoint(tmp_path / "own.safetensors").build(), original)


def test_network_with_hub_mixin(tmp_path: Path):
    class HubGhostNet(GhostNet, PyTorchModelHubMixin):
        pass

    original = HubGhostNet(num_classes=2, width=0.1, stages=STAGES[:4])
    original.save_pretrained(tmp_path / "hub")
    assert equal(HubGhostNet.from_pretrained(tmp_path / "hub"), original)
