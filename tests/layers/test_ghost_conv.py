"""GhostConv2d against its definition, and convolutions with fewer channels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostConv2d, narrow_conv


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(("size", "stride", "dilation", "bias"), [(3, 2, 1, True), (1, 1, 1, False), (5, 1, 2, True)])
def test_forward_is_intrinsic_maps_and_filtered_ghosts_in_the_order_of_the_convolution(
    mix: bool, size: int, stride: int, dilation: int, bias: bool
):
    conv = nn.Conv2d(5, 7, size, stride, size // 2 * dilation, dilation, bias=bias)
    ghost = GhostConv2d(conv, 3, mix=mix, cheap_kernel_size=3, act="relu6")
    order = torch.randperm(7)
    ghost.order.copy_(order)
    x = 9 * torch.randn(2, 5, 13, 11)
    intrinsic = F.relu6(conv(x)[:, :3])
    if mix:
        sources = torch.einsum("gm,nmhw->nghw", ghost.mix.weight[:, :, 0, 0], intrinsic)
    else:
        sources = intrinsic[:, [0, 1, 2, 0]]
    ghosts = F.conv2d(sources, ghost.cheap.weight, ghost.cheap.bias, padding=1, groups=4)
    expected = torch.cat([intrinsic, ghosts], 1)[:, order]
    assert ghost(x).shape == conv(x).shape
    torch.testing.assert_close(ghost(x), expected)


def test_narrow_conv_keeps_the_class_and_the_chosen_channels():
    class Same(nn.Conv2d):
        def forward(self, x):
            return super().forward(F.pad(x, (0, 1, 0, 1)))

    conv, x = Same(6, 9, 2), torch.randn(2, 6, 8, 8)
    outputs, inputs = torch.tensor([7, 0, 4]), torch.tensor([1, 2, 5])
    narrow = narrow_conv(conv, outputs=outputs)
    torch.testing.assert_close(narrow(x), conv(x)[:, outputs])
    rest = torch.tensor([0, 3, 4])
    parts = narrow_conv(conv, inputs=inputs)(x[:, inputs]) + narrow_conv(conv, inputs=rest)(x[:, rest])
    torch.testing.assert_close(parts - conv.bias[:, None, None], conv(x))
    depthwise = nn.Conv2d(9, 9, 3, groups=9, bias=False)
    y = torch.randn(2, 9, 8, 8)
    torch.testing.assert_close(narrow_conv(depthwise, outputs=outputs)(y[:, outputs]), depthwise(y)[:, outputs])


@pytest.mark.parametrize(("intrinsic", "options"), [(0, {}), (7, {}), (3, {"cheap_kernel_size": 2}), (3, {"act": "x"})])
def test_arguments_out_of_range_are_rejected(intrinsic: int, options: dict):
    with pytest.raises(ConfigurationError):
        GhostConv2d(nn.Conv2d(5, 7, 1), intrinsic, mix=True, **options)
