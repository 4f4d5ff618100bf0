"""GhostNet against timm, whose implementation is exactly the official one."""

import itertools

import pytest
import timm
import torch
from graphs import slow_unless

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models import create_model
from ghostnets.models.ghostnet import STAGES, VARIANTS, GhostNet


@pytest.mark.parametrize("name", slow_unless(["ghostnet_100"], sorted(VARIANTS)))
def test_outputs_match_timm(name: str, randomize):
    theirs = randomize(timm.create_model(name))
    ours = create_model(name).eval()
    ours.load_state_dict(theirs.state_dict())
    for batch, size in itertools.product((1, 3), [(224, 224), (225, 225), (192, 320)]):
        x = torch.randn(batch, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
            torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x), rtol=0, atol=1e-5)


def test_gradients_match_timm(randomize):
    theirs = timm.create_model("ghostnet_050", drop_rate=0.0).train()
    ours = create_model("ghostnet_050", drop_rate=0.0).train()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 64, 64)
    for model in (ours, theirs):
        model(x).square().mean().backward()
    theirs_grads = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs_grads[name].grad, rtol=1e-3, atol=1e-5)


def test_feature_levels():
    backbone = create_model("ghostnet_100", features_only=True, out_indices=range(6)).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 224, 224))
    assert [m.shape[1] for m in maps] == [16, 24, 40, 112, 160, 960]
    assert [224 // m.shape[2] for m in maps] == [2, 4, 8, 16, 32, 32]
    assert [(level.channels, level.stride) for level in backbone.feature_levels] == [
        (m.shape[1], 224 // m.shape[2]) for m in maps
    ]


def test_backbone_has_network_names_and_no_unused_parameters():
    backbone = create_model("ghostnet_050", features_only=True, out_indices=(1, -3))
    assert backbone.out_indices == (1, 3)
    sum(m.sum() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert backbone.state_dict().keys() <= create_model("ghostnet_050").state_dict().keys()


@pytest.mark.parametrize("indices", [(), (6,), (-7,)])
def test_invalid_out_indices_raise(indices: tuple[int, ...]):
    with pytest.raises(ConfigurationError, match="levels 0 to 5"):
        create_model("ghostnet_050", features_only=True, out_indices=indices)


@pytest.mark.parametrize("side", [28, 32, 64])
def test_small_input_last_map_is_larger_than_one_pixel(side: int):
    model = create_model("ghostnet_050", small_input=True, in_chans=1, num_classes=10).eval()
    assert model.feature_levels[-1].stride == 16
    with torch.inference_mode():
        assert model.forward_features(torch.randn(1, 1, side, side)).shape[2:] == (-(-side // 16),) * 2


def test_small_input_keeps_weight_shapes():
    usual, small = create_model("ghostnet_050"), create_model("ghostnet_050", small_input=True)
    small.load_state_dict(usual.state_dict())


@pytest.mark.parametrize("width", [0.1, 0.35, 0.77, 1.7])
def test_any_width(width: float):
    model = create_model("ghostnet_100", width=width, num_classes=3).eval()
    assert model(torch.randn(1, 3, 33, 40)).shape == (1, 3)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_network_matches_strided_network_on_its_grid(output_stride: int, randomize):
    """Without squeeze-and-excitation, which would average over other pixels, outputs agree on the common grid."""
    stages = [[row._replace(se_ratio=0.0) for row in stage] for stage in STAGES]
    strided = randomize(GhostNet(width=0.5, stages=stages))
    dilated = GhostNet(width=0.5, stages=stages, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 128, 64)
    step = 32 // output_stride
    got, expected = dilated.forward_features(x), strided.forward_features(x)
    assert got.shape[2:] == (128 // output_stride, 64 // output_stride)
    torch.testing.assert_close(got[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-4)
    assert [level.stride for level in dilated.feature_levels] == [min(s, output_stride) for s in (2, 4, 8, 16, 32, 32)]


def test_head_parts(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=7))
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(model.classifier(features), model(x))
    model.reset_classifier(4)
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features)


def test_every_activation_is_relu():
    """There is no hard-swish, because of its latency (section 3.2 of the paper)."""
    kinds = {
        type(m).__name__
        for m in create_model("ghostnet_100").modules()
        if "torch.nn.modules.activation" in type(m).__module__
    }
    assert kinds == {"ReLU"}


def test_dropout_is_applied_before_classifier_in_training_only():
    model = create_model("ghostnet_050", drop_rate=0.9, num_classes=5)
    features = torch.randn(2, 480, 1, 1)
    model.train()
    assert not torch.equal(model.forward_head(features), model.forward_head(features))
    model.eval()
    assert torch.equal(model.forward_head(features), model.forward_head(features))


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 0},
        {"drop_path_rate": -0.1},
        {"ratio": 0},
    ],
)
def test_invalid_arguments_raise(arguments: dict):
    with pytest.raises(ConfigurationError):
        GhostNet(**arguments)


def test_unknown_names_and_arguments_raise():
    with pytest.raises(UnknownNameError, match="did you mean ghostnet_100"):
        create_model("ghostnet_1000")
    with pytest.raises(ConfigurationError, match="no argument depth; it takes cheap_kernel_size, drop_path_rate"):
        create_model("ghostnet_100", depth=3)
    with pytest.raises(ConfigurationError, match="features_only"):
        create_model("ghostnet_100", out_indices=(1,))
