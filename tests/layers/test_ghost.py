import math

import pytest
import torch
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostModule, theoretical_speedup
from ghostnets.measure import count


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("out_channels", [1, 2, 7, 16, 17])
@pytest.mark.parametrize(("kernel_size", "cheap", "stride"), [(1, 3, 1), (3, 1, 2), (5, 5, 1), (3, 7, 2)])
def test_output_shape_for_any_ratio_and_channel_count(
    ratio: int, out_channels: int, kernel_size: int, cheap: int, stride: int
):
    module = GhostModule(5, out_channels, kernel_size=kernel_size, ratio=ratio, cheap_kernel_size=cheap, stride=stride)
    x = torch.randn(2, 5, 9, 6)
    assert module(x).shape == (2, out_channels, math.ceil(9 / stride), math.ceil(6 / stride))
    intrinsic = math.ceil(out_channels / ratio)
    # By formula: primary k^2 c m, cheap d^2 for each of m (s - 1) ghosts; normalisation has two numbers a map.
    expected = kernel_size**2 * 5 * intrinsic + cheap**2 * intrinsic * (ratio - 1) + 2 * intrinsic * ratio
    assert sum(p.numel() for p in module.parameters()) == expected


@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize(("out_channels", "ratio"), [(7, 2), (8, 3), (9, 4), (6, 1)])
def test_ghost_module_matches_definition(act: bool, out_channels: int, ratio: int, randomize):
    """Equations 2 and 3 of the paper, map by map, without the layers of the module."""
    module = randomize(GhostModule(4, out_channels, kernel_size=3, ratio=ratio, cheap_kernel_size=3, act=act))
    x = torch.randn(2, 4, 8, 8)

    def norm(maps: torch.Tensor, layer: torch.nn.BatchNorm2d) -> torch.Tensor:
        maps = F.batch_norm(maps, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)
        return maps.relu() if act else maps

    primary = module.primary_conv
    intrinsic = norm(F.conv2d(x, primary[0].weight, padding=1), primary[1])
    maps = [intrinsic]
    if ratio > 1:
        kernels, ghosts = module.cheap_operation[0].weight, []
        for i in range(intrinsic.shape[1]):
            for j in range(ratio - 1):
                kernel = kernels[i * (ratio - 1) + j][None]
                ghosts.append(F.conv2d(intrinsic[:, i : i + 1], kernel, padding=1))
        maps.append(norm(torch.cat(ghosts, 1), module.cheap_operation[1]))
    expected = torch.cat(maps, 1)[:, :out_channels]
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_odd_channel_count_trains_last_map():
    module = GhostModule(3, 5, ratio=2)
    module(torch.randn(2, 3, 4, 4))[:, 4].sum().backward()
    assert module.cheap_operation[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "value"), [("ratio", 0), ("out_channels", 0), ("stride", 0), ("kernel_size", 2), ("cheap_kernel_size", 4)]
)
def test_invalid_sizes_raise(name: str, value: int):
    arguments = {"in_channels": 4, "out_channels": 4, name: value}
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it must be"):
        GhostModule(arguments.pop("in_channels"), arguments.pop("out_channels"), **arguments)


@pytest.mark.parametrize(("c", "k", "s", "d"), [(16, 1, 2, 3), (512, 3, 2, 3), (64, 3, 4, 5)])
def test_theoretical_speedup_matches_counted_macs(c: int, k: int, s: int, d: int):
    ghost = count(GhostModule(c, 8 * s, kernel_size=k, ratio=s, cheap_kernel_size=d), (c, 6, 6))
    plain = count(GhostModule(c, 8 * s, kernel_size=k, ratio=1), (c, 6, 6))
    assert plain.macs / ghost.macs == pytest.approx(theoretical_speedup(c, k, s, d), rel=1e-12)
