"""Squeeze-and-excitation as GhostNet uses it (Hu et al., arXiv 1709.01507; the hard gate of MobileNetV3)."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] that sees the whole map: (N, C, H, W) -> same shape.

    The gate is ``relu6(x + 3) / 6``, the piecewise linear stand-in for the sigmoid.

    Args:
        channels: C.
        squeezed_channels: Width of the bottleneck between the two 1x1 convolutions.
    """

    def __init__(self, channels: int, squeezed_channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed_channels, 1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(squeezed_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        gate = self.conv_expand(self.act1(self.conv_reduce(gate)))
        return x * F.hardsigmoid(gate)
