import math

import pytest
import torch

from ghostnets.layers import GhostBottleneck


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("se_ratio", [0.0, 0.25])
@pytest.mark.parametrize("channels", [(8, 8), (8, 13), (7, 7)])
def test_bottleneck_shapes(stride: int, se_ratio: float, channels: tuple[int, int]):
    c_in, c_out = channels
    block = GhostBottleneck(c_in, 15, c_out, kernel_size=5, stride=stride, se_ratio=se_ratio)
    x = torch.randn(2, c_in, 11, 6)
    assert block(x).shape == (2, c_out, math.ceil(11 / stride), math.ceil(6 / stride))
    has_identity = len(block.shortcut) == 0
    assert has_identity == (stride == 1 and c_in == c_out)


def test_identity_shortcut_adds_input(randomize):
    block = randomize(GhostBottleneck(8, 16, 8))
    torch.nn.init.zeros_(block.ghost2.primary_conv[1].weight)
    torch.nn.init.zeros_(block.ghost2.primary_conv[1].bias)
    torch.nn.init.zeros_(block.ghost2.cheap_operation[1].weight)
    torch.nn.init.zeros_(block.ghost2.cheap_operation[1].bias)
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("options", [{}, {"branches": 2}, {"ratio": 3}])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_atrous_block_equals_strided_block_at_every_second_pixel(options, kernel_size, randomize):
    strided = randomize(GhostBottleneck(6, 14, 9, kernel_size=kernel_size, stride=2, **options))
    atrous = GhostBottleneck(6, 14, 9, kernel_size=kernel_size, stride=2, atrous=True, **options).eval()
    atrous.load_state_dict(strided.state_dict())
    x = torch.randn(1, 6, 16, 12)
    assert atrous(x).shape[2:] == (16, 12)
    torch.testing.assert_close(atrous(x)[:, :, ::2, ::2], strided(x), rtol=1e-5, atol=1e-5)


def test_stochastic_depth_keeps_shortcut(randomize):
    block = randomize(GhostBottleneck(6, 14, 9, drop_path_rate=0.5))
    x = torch.randn(64, 6, 4, 4)
    shortcut, whole = block.shortcut(x), block(x)
    block.drop_path.train()  # normalisation stays in evaluation mode, so that only the draw changes
    out = block(x)
    is_dropped = (out - shortcut).abs().amax((1, 2, 3)) < 1e-6
    assert 16 < is_dropped.sum() < 48
    kept = (whole - shortcut) * 2 + shortcut  # scaled, so that the mean stays
    torch.testing.assert_close(out[~is_dropped], kept[~is_dropped], rtol=1e-4, atol=1e-5)
