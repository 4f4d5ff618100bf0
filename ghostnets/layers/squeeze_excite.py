"""Squeeze-and-excitation with the hard-sigmoid gate of MobileNetV3, as in GhostNet (Hu et al., arXiv 1709.01507)."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] computed from the pooled map: (N, C, H, W) -> same shape.

    The gate is the hard sigmoid ``relu6(x + 3) / 6``.

    Args:
        channels: Number of channels, C.
        squeezed_channels: Channels between the two 1x1 convolutions.
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
