"""The DFC gate of GhostNetV2: long-range attention by two separable convolutions at half resolution.

Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022 (arXiv 2211.12905). The paper
derives "decoupled fully connected" attention, along rows and then along columns; like the published networks, this
module implements it with 1 x 5 and 5 x 1 depthwise convolutions.
"""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DFCGate"]


@torch.fx.wrap  # a symbolic size cannot be compared, so this is one node of a traced graph
def halve(x: Tensor) -> Tensor:
    """Pool 2x2 by the average; a side of one pixel is kept: (N, C, H, W) -> (N, C, max(1, H // 2), max(1, W // 2))."""
    height, width = x.shape[2:]
    return F.avg_pool2d(x, (min(2, height), min(2, width)))


class DFCGate(nn.Sequential):
    """Attention gate of a Ghost module, computed from its input: (N, C_in, H, W) -> (N, C_out, H', W') in (0, 1).

    ::

        x ─> average pool 2x2 ─> conv k x k, BN ─> 1 x 5 depthwise, BN ─> 5 x 1 depthwise, BN ─> sigmoid ─> nearest

    The six layers have their published names, ``short_conv.0`` to ``short_conv.5``. As in the published networks, whose
    weights depend on it, pooling drops the last row and column of a map of odd size (7 x 7 at 224), and the gate is
    upsampled by nearest neighbour.

    A side of one pixel is not pooled, so that inputs below 33 pixels work (the published implementations fail on them).

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the first convolution, that of the Ghost module.
        stride: Stride of the first convolution, that of the Ghost module.
        dilation: Dilation of the last two convolutions. Pooling is not dilated, so a network with dilation in place of
            stride computes this gate from different pixels than the strided network.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1, dilation: int = 1
    ) -> None:
        d, c = dilation, out_channels
        super().__init__(
            nn.Conv2d(in_channels, c, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(c),
            nn.Conv2d(c, c, (1, 5), padding=(0, 2 * d), dilation=(1, d), groups=c, bias=False),
            nn.BatchNorm2d(c),
            nn.Conv2d(c, c, (5, 1), padding=(2 * d, 0), dilation=(d, 1), groups=c, bias=False),
            nn.BatchNorm2d(c),
        )

    def gate(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Gate (N, C_out, H', W') for the input ``x`` of a Ghost module whose output has the size (H', W')."""
        return F.interpolate(self(halve(x)).sigmoid(), size=size, mode="nearest")
