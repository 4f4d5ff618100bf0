"""Ghost-VGG: equal to torchvision's VGG-16 at ratio 1; counts as in the docstring of the module."""

import pytest
import torch
import torchvision
from conftest import enliven
from torch import nn
from torch.export import Dim

from ghostnets.compress import fuse
from ghostnets.errors import ConfigurationError
from ghostnets.measure import count
from ghostnets.models.ghost_vgg import GhostVGG, _pool
from ghostnets.models.network import Dilation

PUBLISHED = [
    # s, d, parameters, multiply-adds; in millions, tables 3 to 5 of the paper
    (1, 3, 15.0, 313),
    (2, 1, 7.6, 157),
    (2, 3, 7.7, 158),
    (2, 5, 7.7, 160),
    (2, 7, 7.7, 163),
    (3, 3, 5.2, 107),
    (4, 3, 4.0, 80),
    (5, 3, 3.3, 65),
]


@pytest.mark.parametrize(("ratio", "d", "params", "macs"), PUBLISHED)
def test_counts_match_published(ratio: int, d: int, params: float, macs: int):
    with torch.device("meta"):
        cost = count(GhostVGG(ratio=ratio, cheap_kernel_size=d), (3, 32, 32))
    assert round(cost.params / 1e6, 1) == params
    without_fc = cost.macs - 512 * 512
    assert round(without_fc / 1e6) == macs


@pytest.mark.parametrize(
    ("ratio", "ghost", "plain"), [(2, 157.85, 158.44), (3, 106.98, 107.73), (4, 80.17, 81.06), (5, 65.40, 66.33)]
)
def test_cost_of_first_convolution(ratio: int, ghost: float, plain: float):
    with torch.device("meta"):
        costs = [count(GhostVGG(ratio=ratio, ghost_stem=choice), (3, 32, 32)).macs for choice in (True, False)]
    assert [round((macs - 512 * 512) / 1e6, 2) for macs in costs] == [ghost, plain]


def test_plain_stem_is_the_only_plain_convolution():
    model = GhostVGG(ghost_stem=False)
    assert [m.ratio for m in model.modules() if hasattr(m, "ratio")] == [1] + [2] * 12


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, GhostVGG]:
    """The features of torchvision's VGG-16, and ours with their weights."""
    torch.manual_seed(0)
    theirs = enliven(torchvision.models.vgg16_bn(num_classes=1).features)
    ours = GhostVGG(ratio=1).eval()
    modules = [m for m in theirs if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    pairs = list(
        zip([m for m in ours.blocks.modules() if type(m) in (nn.Conv2d, nn.BatchNorm2d)], modules, strict=True)
    )
    for mine, their in pairs:
        if isinstance(their, nn.Conv2d):
            nn.init.zeros_(their.bias)  # ours has none, which the normalisation makes superfluous
            mine.weight.data.copy_(their.weight)
        else:
            mine.load_state_dict(their.state_dict())
    for module in theirs:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    return theirs, ours


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (45, 77)])
def test_ratio_one_matches_torchvision(networks: tuple[nn.Module, GhostVGG], size: tuple[int, int]):
    theirs, ours = networks
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        maps = theirs(x)
        assert (maps[0] - maps[1]).abs().max() > 0.1
        atol = 1e-5 * max(1, maps.abs().max().item())
        torch.testing.assert_close(ours.forward_features(x), maps, rtol=0, atol=atol)
        logits = ours.classifier(torch.relu(ours.fc(maps.mean(dim=(2, 3)))))
        torch.testing.assert_close(ours(x), logits, rtol=0, atol=atol)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_every_parameter_receives_gradient(ratio: int):
    model = GhostVGG(ratio=ratio, num_classes=5).train()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_output_shape_for_any_size_ratio_and_channels(ratio: int):
    model = enliven(GhostVGG(ratio=ratio, num_classes=7, in_chans=2))
    with torch.inference_mode():
        for size in [(1, 1), (32, 32), (33, 47)]:
            assert model(torch.randn(2, 2, *size)).shape == (2, 7)


def test_head_parts():
    model = enliven(GhostVGG())
    x = torch.randn(2, 3, 32, 32)
    maps = model.forward_features(x)
    assert maps.shape == (2, model.num_features, 1, 1)
    features = model.forward_head(maps, pre_logits=True)
    assert features.shape == (2, 512)
    torch.testing.assert_close(model.classifier(features), model(x))
    model.reset_classifier(4)
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_fuse_folds_every_batch_norm(ratio: int):
    model = enliven(GhostVGG(ratio=ratio)).double()
    fused = fuse(model)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(x)
        assert (expected[0] - expected[1]).abs().max() > 0.1
        torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(64, 96), (40, 72)])
def test_dilated_network_matches_strided_network_on_its_grid(output_stride: int, size: tuple[int, int]):
    strided = enliven(GhostVGG())
    dilated = GhostVGG(output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, *size)
    step = 32 // output_stride
    with torch.inference_mode():
        got, expected = dilated.forward_features(x)[:, :, ::step, ::step], strided.forward_features(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"ratio": 0}, {"cheap_kernel_size": 2}])
def test_invalid_arguments_raise(arguments: dict):
    with pytest.raises(ConfigurationError):
        GhostVGG(**arguments)


@pytest.mark.parametrize("size", [(97, 98), (131, 97)])
def test_pools_round_up_and_export_with_bounds_of_sizes(size: tuple[int, int]):
    """Bounds of the image size reject the condition that a pool with ``ceil_mode`` puts on it."""
    resolution = Dilation(32)
    pools = nn.Sequential(*[_pool(resolution) for _ in range(5)])
    bounds = {2: Dim("h", min=97, max=1024), 3: Dim("w", min=97, max=1024)}
    exported = torch.export.export(pools, (torch.randn(1, 2, 97, 98),), dynamic_shapes=(bounds,)).module()
    x = torch.randn(1, 2, *size)
    expected = nn.Sequential(*[nn.MaxPool2d(2, ceil_mode=True)] * 5)(x)
    assert torch.equal(pools(x), expected)
    assert torch.equal(exported(x), expected)
