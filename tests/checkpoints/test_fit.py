"""Weights that fit after an adaptation, and messages that name the network that fits."""

from pathlib import Path

import pytest
import torch
from timm.models import adapt_input_conv
from torch import nn
from torch.nn.utils import prune

from ghostnets.checkpoints import load_checkpoint, read_checkpoint
from ghostnets.compress import reparameterize
from ghostnets.errors import CheckpointError
from ghostnets.models import Backbone, create_model


def saved(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_missing_batch_counters_are_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    state = create_model("ghostnet_050", num_classes=3, width=0.1).state_dict()
    path = saved({name: tensor for name, tensor in state.items() if "num_batches" not in name}, tmp_path)
    loaded = load_checkpoint(create_model("ghostnet_050", num_classes=3, width=0.1), path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert not caplog.records


def test_batch_counters_of_one_element_fit(tmp_path: Path):
    state = create_model("ghostnet_050", num_classes=3, width=0.1).state_dict()
    path = saved({name: tensor.reshape(-1) if tensor.ndim == 0 else tensor for name, tensor in state.items()}, tmp_path)
    loaded = load_checkpoint(create_model("ghostnet_050", num_classes=3, width=0.1), path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (nn.utils.parametrizations.weight_norm, "has a parametrization; call .*remove_parametrizations, then save"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.1), r"is pruned; call torch\.nn\.utils\.prune\.remove"),
    ],
)
def test_weights_in_another_form_are_named(apply, message: str, tmp_path: Path):
    network = create_model("ghostnet_050", num_classes=3, width=0.1)
    apply(network.classifier)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(create_model("ghostnet_050", num_classes=3, width=0.1), saved(network.state_dict(), tmp_path))


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_100_d_li14_revised", "g_ghost_regnetx_002", "ghost_vgg16"])
def test_classifier_file_fits_backbone(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    network = create_model(name, num_classes=3).eval()
    path = saved(network.state_dict(), tmp_path)
    backbone = load_checkpoint(create_model(name, features_only=True, num_classes=3), path).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for ours, expected in zip(backbone(x), Backbone(network)(x), strict=True):
            assert torch.equal(ours, expected)
    assert "left out for the backbone: " in caplog.text
    other = {**network.state_dict(), "neck.weight": torch.ones(3)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: neck\.weight"):
        load_checkpoint(create_model(name, features_only=True), saved(other, tmp_path))


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_100_d_li14", "g_ghost_regnetx_002", "ghost_vgg16"])
def test_backbone_file_fits_classifier_with_new_head(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    backbone = create_model(name, features_only=True).state_dict()
    path = saved(backbone, tmp_path)
    network = create_model(name, num_classes=4)
    with pytest.raises(CheckpointError, match=r"missing: .*or pass replace_head=True to keep"):
        load_checkpoint(network, path)
    head = {key: tensor.clone() for key, tensor in network.state_dict().items() if key not in backbone}
    loaded = load_checkpoint(network, path, replace_head=True).state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in {**head, **backbone}.items())
    partial = dict(backbone)
    del partial[next(reversed(backbone))]
    if name == "ghostnet_050":
        assert "has only a backbone; new are blocks.9.0.bn1, blocks.9.0.conv, conv_head" in caplog.text
        del partial["blocks.3.0.bn_dw.weight"]
        with pytest.raises(CheckpointError, match=r"1 missing: blocks\.3\.0\.bn_dw\.weight"):
            load_checkpoint(network, saved(partial, tmp_path), replace_head=True)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_rgb_stem_is_adapted_as_timm_does(channels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    state = create_model("ghostnet_050", num_classes=3, width=0.1).state_dict()
    path = saved(state, tmp_path)
    model = load_checkpoint(create_model("ghostnet_050", num_classes=3, width=0.1, in_chans=channels), path)
    expected = adapt_input_conv(channels, state["conv_stem.weight"])
    torch.testing.assert_close(model.conv_stem.weight, expected, rtol=0, atol=1e-7)
    assert f"for 3 input channels, are {'summed over RGB' if channels == 1 else 'repeated and scaled'}" in caplog.text


def test_name_takes_input_channels_of_file(tmp_path: Path):
    path = saved(create_model("ghostnet_050", num_classes=3, in_chans=1).state_dict(), tmp_path)
    assert load_checkpoint("ghostnet_050", path).conv_stem.in_channels == 1


def test_name_with_file_without_classifier(tmp_path: Path):
    path = saved(create_model("ghostnet_050", num_classes=0).state_dict(), tmp_path)
    assert load_checkpoint("ghostnet_050", path).num_classes == 0


def test_other_stride_of_the_stem_is_told(tiny_run: Path, caplog: pytest.LogCaptureFixture):
    """``small_input`` changes no weight, so only the log tells that a checkpoint is used in another network."""
    checkpoint = read_checkpoint(tiny_run)
    assert checkpoint.arguments["small_input"]
    load_checkpoint(checkpoint.build(), checkpoint_file := tiny_run / "best.safetensors")
    load_checkpoint(checkpoint.architecture, checkpoint_file)
    assert not caplog.records
    load_checkpoint(
        create_model(checkpoint.architecture, **{**checkpoint.arguments, "small_input": False}), checkpoint_file
    )
    assert "the stem of its network has stride 1, here it has 2 (small_input), so the outputs differ" in caplog.text


def test_merged_v3_file_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture, randomize):
    merged = reparameterize(randomize(create_model("ghostnetv3_050", num_classes=3)))
    path = saved(merged.state_dict(), tmp_path)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_checkpoint("ghostnetv3_050", path)(x), merged(x))
    assert "has merged branches" in caplog.text
    with pytest.raises(CheckpointError, match=r"it fits ghostnetv3_050 in merged form: load_checkpoint"):
        load_checkpoint(create_model("ghostnetv3_050", num_classes=3), path)


@pytest.mark.parametrize(
    ("arguments", "loaded_into", "message"),
    [
        (("ghostnet_050", {"num_classes": 7}), "ghostnet_100", "it fits ghostnet_050; build"),
        (("ghostnetv2_050", {"in_chans": 1}), "ghostnet_050", "it fits ghostnetv2_050; build"),
        (("ghostnet_100_d_li14_revised", {}), "ghostnet_100", "it fits ghostnet_100_d_li14_revised; build"),
        (("ghostnet_100", {"width": 0.15}), "ghostnet_100", r"it fits create_model\('ghostnet_100', width=0.15\)"),
        (("ghost_resnet20", {}), "resnet20", "it fits ghost_resnet20; build"),
    ],
)
def test_file_of_sister_network_names_network_that_fits(
    arguments: tuple[str, dict[str, float]], loaded_into: str, message: str, tmp_path: Path
):
    name, options = arguments
    path = saved(create_model(name, **options).state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(loaded_into, path)


def test_file_of_foreign_network_is_described(tmp_path: Path):
    path = saved({"encoder.layers.0.mlp.weight": torch.ones(4, 4)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"1 unexpected: encoder\.layers\.0\.mlp\.weight; the file is of a net"):
        load_checkpoint("ghostnet_050", path)
