"""Checkpoints of the official implementation and of timm, as published."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import reparameterize_model
from torchvision.models.feature_extraction import create_feature_extractor

from ghostnets.checkpoints import load_checkpoint, to_timm_state_dict
from ghostnets.compress import reparameterize
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_v2_with_profiler_counters(tmp_path, randomize):
    theirs = randomize(timm.create_model("ghostnetv2_100"))
    state = theirs.state_dict()
    for prefix in ("", "conv_stem.", "blocks.3.0.ghost1.primary_conv.0."):
        state |= {f"{prefix}total_ops": torch.zeros(1), f"{prefix}total_params": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 449}, tmp_path / "ck_ghostnetv2_10.pth.tar")
    ours = create_model("ghostnetv2_100").eval()
    load_checkpoint(ours, tmp_path / "ck_ghostnetv2_10.pth.tar")
    torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize("names", ["timm", "official"])
def test_v3_in_training_form(tmp_path, randomize, names):
    theirs = randomize(timm.create_model("ghostnetv3_100"))
    state = theirs.state_dict()
    if names == "official":  # there the normalisation of a branch is called bn
        state = {k.replace(".bn1.", ".bn.") if "_rpr_" in k else k: v for k, v in state.items()}
    torch.save(state, tmp_path / "v3.pth")
    ours = create_model("ghostnetv3_100").eval()
    load_checkpoint(ours, tmp_path / "v3.pth")
    torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=1e-5 * max(1, theirs(X).abs().max().item()))


def test_v3_in_fused_form(tmp_path, randomize):
    theirs = reparameterize_model(randomize(timm.create_model("ghostnetv3_050")))
    save_file(theirs.state_dict(), tmp_path / "fused.safetensors")
    ours = reparameterize(create_model("ghostnetv3_050")).eval()
    load_checkpoint(ours, tmp_path / "fused.safetensors")
    torch.testing.assert_close(ours(X), theirs(X), rtol=0, atol=1e-5 * max(1, theirs(X).abs().max().item()))
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(create_model("ghostnetv3_050"), tmp_path / "fused.safetensors")


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_100", "ghostnetv3_050"])
def test_to_timm_state_dict_gives_equal_outputs(name: str, randomize):
    ours, theirs = randomize(create_model(name, num_classes=3)), timm.create_model(name, num_classes=3).eval()
    theirs.load_state_dict(to_timm_state_dict(ours))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-4)


def test_to_timm_state_dict_of_merged_v3(randomize):
    theirs = reparameterize_model(timm.create_model("ghostnetv3_050", num_classes=3).eval())
    ours = reparameterize(randomize(create_model("ghostnetv3_050", num_classes=3)))
    theirs.load_state_dict(to_timm_state_dict(ours))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ghost_resnet20", {}, "timm has no GhostResNet"),
        ("ghostnet_050", {"small_input": True}, "output stride of 32"),
        ("ghostnet_050", {"output_stride": 16}, "output stride of 32"),
    ],
)
def test_to_timm_state_dict_rejects_network_that_timm_does_not_have(name, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        to_timm_state_dict(create_model(name, **arguments))


def test_extractor_gives_levels_of_timm(randomize):
    ours = randomize(create_model("ghostnet_050"))
    theirs = timm.create_model("ghostnet_050").eval()
    theirs.load_state_dict(to_timm_state_dict(ours))
    modules = ["conv_stem", "blocks.1", "blocks.3", "blocks.5", "blocks.7"]
    assert [level["module"] for level in theirs.feature_info] == modules
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        maps = list(create_feature_extractor(ours, modules)(x).values())
        expected = theirs.forward_intermediates(x, intermediates_only=True)
        for ours_level, level in zip(maps[1:], expected[1:], strict=True):
            torch.testing.assert_close(ours_level, level, rtol=1e-4, atol=1e-4)
