"""Ghost-ResNet: equal to torchvision's ResNet at ratio 1; cost for any ratio by the formula."""

import math

import pytest
import torch
import torchvision
from conftest import enliven
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ghostnets.compress import fuse
from ghostnets.errors import ConfigurationError
from ghostnets.measure import Cost, count
from ghostnets.models.ghost_resnet import CIFAR_SPEC, VARIANTS, GhostResNet, ZeroPadShortcut
from ghostnets.models.network import Variant


def build(variant: Variant, **arguments) -> GhostResNet:
    return GhostResNet(**({"num_classes": variant.benchmark.num_classes, **variant.arguments} | arguments))


class Decimated(nn.Module):
    """Option A of the ResNet paper, as a slice and a concatenation."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, ::2, ::2]
        return torch.cat([x, torch.zeros_like(x)], dim=1)


def plain(name: str) -> nn.Module:
    """torchvision's network for the ratio-1 form of a variant."""
    depth = int(name.split("resnet")[1])
    if VARIANTS[name].arguments["spec"] != CIFAR_SPEC:
        return torchvision.models.get_model(f"resnet{depth}")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            halves = width != channels
            layers.append(BasicBlock(channels, width, 2 if halves else 1, Decimated() if halves else None))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def copy_weights(theirs: nn.Module, ours: GhostResNet) -> None:
    """Copy by position: both have the same layers in the same order, except for the shortcuts."""
    blocks = [m for m in theirs.modules() if hasattr(m, "downsample")]
    inside = {id(m) for block in blocks for m in block.modules()}
    outside = [m for m in theirs.modules() if list(m.parameters(recurse=False)) and id(m) not in inside]
    pairs = list(zip([ours.stem[0], ours.stem[1], ours.classifier], outside, strict=True))
    for residual, block in zip([r for stage in ours.blocks for r in stage], blocks, strict=True):
        for index, convolution in enumerate(residual.convs, start=1):
            pairs += [
                (convolution.primary_conv[0], getattr(block, f"conv{index}")),
                (convolution.primary_conv[1], getattr(block, f"bn{index}")),
            ]
        if isinstance(block.downsample, nn.Sequential):
            pairs += zip(residual.shortcut.primary_conv[:2], block.downsample, strict=True)
    for mine, their in pairs:
        mine.load_state_dict(their.state_dict())
    copied = sum(p.numel() for module, _ in pairs for p in module.parameters())
    assert copied == sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def ghost_cost(cost: Cost, *, ratio: int, d: int) -> tuple[int, int]:
    """Parameters and MACs with Ghost modules for all layers except stem and classifier (equations 2 and 3)."""
    stem, *convolutions, classifier = cost.layers
    params, macs = stem.params + 2 * stem.output_shape[0] + classifier.params, stem.macs + classifier.macs
    for layer in convolutions:
        outputs, height, width = layer.output_shape
        intrinsic = math.ceil(outputs / ratio)
        weights = intrinsic * layer.params // outputs + intrinsic * (ratio - 1) * d**2
        params += weights + 2 * intrinsic * ratio
        macs += weights * height * width
    return params, macs


def test_plain_network_counts_match_published():
    with torch.device("meta"):
        resnet50 = count(GhostResNet(ratio=1), (3, 224, 224))
    assert resnet50.params == 25_557_032
    assert round(resnet50.macs / 1e9, 1) == 4.1
    variant = VARIANTS["resnet56"]
    assert (round(variant.params, 2), int(variant.macs)) == (variant.published_params, variant.published_macs)


@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet50", "ghost_resnet56"])
@pytest.mark.parametrize(("ratio", "d"), [(1, 3), (2, 3), (3, 5), (4, 1)])
def test_counts_match_formula(name: str, ratio: int, d: int):
    variant = VARIANTS[name]
    shape = (3, variant.benchmark.image_size, variant.benchmark.image_size)
    with torch.device("meta"):
        cost = count(build(variant, ratio=ratio, cheap_kernel_size=d), shape)
        expected = ghost_cost(count(plain(name), shape), ratio=ratio, d=d)
    assert (cost.params, cost.macs) == expected


@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet50", "ghost_resnet20"])
def test_ratio_one_matches_torchvision(name: str):
    theirs = enliven(plain(name))
    ours = build(VARIANTS[name], ratio=1).eval()
    copy_weights(theirs, ours)
    for size in [(224, 224), (161, 97)]:
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            expected = theirs(x)
            atol = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(ours(x), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_zero_padded_shortcut(size: tuple[int, int]):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(ZeroPadShortcut(3, 6, stride=2)(x), Decimated()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet50", "ghost_resnet20", "resnet20"])
def test_every_parameter_receives_gradient(name: str):
    model = build(VARIANTS[name], num_classes=5).train()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet20"])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_output_shape_for_any_size_ratio_and_channels(name: str, ratio: int):
    model = enliven(build(VARIANTS[name], ratio=ratio, num_classes=7, in_chans=2))
    with torch.inference_mode():
        for size in [(1, 1), (32, 32), (33, 47)]:
            assert model(torch.randn(2, 2, *size)).shape == (2, 7)


def test_head_parts():
    model = enliven(build(VARIANTS["ghost_resnet20"]))
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert features.shape == (2, 64) == (2, model.num_features)
    torch.testing.assert_close(model.classifier(features), model(x))
    model.reset_classifier(4)
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet50", "ghost_resnet20"])
def test_fuse_folds_every_batch_norm(name: str, ratio: int):
    model = enliven(build(VARIANTS[name], ratio=ratio)).double()
    fused = fuse(model)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(x)
        assert (expected[0] - expected[1]).abs().max() > 0.1
        torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["ghost_resnet18", "ghost_resnet50"])
def test_dilated_network_matches_strided_network_on_its_grid(name: str, output_stride: int):
    strided = enliven(build(VARIANTS[name])).double()
    dilated = build(VARIANTS[name], output_stride=output_stride).eval().double()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    step = 32 // output_stride
    with torch.inference_mode():
        got, expected = dilated.forward_features(x)[:, :, ::step, ::step], strided.forward_features(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_ghost_resnet56_matches_published_except_cheap_operations():
    """The published 63 M MACs exclude the cheap operations (docs/models.md)."""
    model = build(VARIANTS["ghost_resnet56"])
    cost = count(model, (3, 32, 32))
    cheap = sum(layer.macs for layer in cost.layers if "cheap_operation" in layer.name)
    assert round((cost.macs - cheap) / 1e6, 2) == 62.96
    projected = GhostResNet(spec=CIFAR_SPEC._replace(projection=True), depths=(9,) * 3, expansion=1, num_classes=10)
    cost = count(projected, (3, 32, 32))
    assert (round(cost.params / 1e6, 3), round(cost.macs / 1e6, 2)) == (0.440, 65.47)


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": ()},
        {"depths": (2, 0)},
        {"expansion": 0},
        {"ratio": 0},
        {"cheap_kernel_size": 2},
    ],
)
def test_invalid_arguments_raise(arguments: dict):
    with pytest.raises(ConfigurationError):
        GhostResNet(**arguments)
