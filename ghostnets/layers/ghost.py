"""The Ghost module: a few intrinsic maps by an ordinary convolution, the rest from them by cheap operations.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), section 3.1.
"""

import math

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.layers.dfc import DFCGate
from ghostnets.layers.reparam import conv_norm

__all__ = ["GhostModule", "theoretical_speedup"]


class GhostModule(nn.Module):
    """A drop-in for a convolution: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ::

        x ──> primary_conv ──> intrinsic maps (C_out / s) ──┬──────────────────────────┐
              1x1 conv, BN, ReLU                            └──> cheap_operation ──> ghosts
                                                                 d x d depthwise,      │
                                                                 BN, ReLU            concat ──> first C_out maps

    Each intrinsic map y' yields s - 1 ghosts, each by a linear d x d kernel of its own (equation 3 of the paper), and
    is kept as it is (the identity mapping of the same section). The ordinary convolution, which is where the cost
    sits, computes only m = ceil(C_out / s) maps. The number of multiply-adds therefore falls by nearly s
    (``theoretical_speedup``).

    Where s does not divide C_out, a few ghosts too many are computed and cut off, as in the published networks.

    Args:
        in_channels: C_in.
        out_channels: C_out; any number from 1, odd ones included.
        kernel_size: Kernel of the primary convolution (k). 1 in GhostNet.
        ratio: s, the number of maps made from each intrinsic map, itself included. 1 is the plain convolution:
            no cheap operation, the same network shape at its full price.
        cheap_kernel_size: Kernel of the cheap operation (d), odd. 3 in all published networks (table 3 of the paper
            compares 1, 3, 5, 7).
        stride: Stride of the primary convolution.
        dilation: Of every convolution.
        atrous: Keep the resolution where stride is 2, and double the dilation of the cheap operation instead.
        act: Whether ReLU follows both halves. False in the second module of a bottleneck, which is linear.
        dfc: Multiply the output by the DFC gate of GhostNetV2.
        branches: Build either convolution of so many re-parameterisable branches, as in GhostNetV3; 0 for an ordinary
            convolution with normalisation.

    Raises:
        ConfigurationError: A size is below 1, or a kernel size is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        atrous: bool = False,
        act: bool = True,
        dfc: bool = False,
        branches: int = 0,
    ) -> None:
        super().__init__()
        for name, value in [
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("ratio", ratio),
            ("stride", stride),
            ("dilation", dilation),
        ]:
            if value < 1 or value != int(value):
                raise ConfigurationError(f"GhostModule: {name} is {value}; it must be an integer of at least 1.")
        for name, value in [("kernel_size", kernel_size), ("cheap_kernel_size", cheap_kernel_size)]:
            if value < 1 or value % 2 == 0:
                raise ConfigurationError(
                    f"GhostModule: {name} is {value}; it must be odd, so that maps keep their size."
                )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.cheap_kernel_size, self.ratio = kernel_size, cheap_kernel_size, ratio
        real_stride, dilation_after = (1, stride * dilation) if atrous else (stride, dilation)
        intrinsic = math.ceil(out_channels / ratio)
        ghosts = intrinsic * (ratio - 1)
        self.primary_conv = nn.Sequential(
            *conv_norm(in_channels, intrinsic, kernel_size, stride=real_stride, dilation=dilation, branches=branches),
            nn.ReLU(inplace=True) if act else nn.Identity(),
        )
        self.cheap_operation = nn.Sequential()
        if ghosts:
            self.cheap_operation = nn.Sequential(
                *conv_norm(
                    intrinsic,
                    ghosts,
                    cheap_kernel_size,
                    groups=intrinsic,
                    dilation=dilation_after,
                    branches=branches,
                    scale=True,
                    skip=True,
                ),
                nn.ReLU(inplace=True) if act else nn.Identity(),
            )
        self.short_conv = (
            DFCGate(in_channels, out_channels, kernel_size=kernel_size, stride=real_stride, dilation=dilation)
            if dfc
            else None
        )
        self.has_ghosts = ghosts > 0
        self.has_surplus = intrinsic + ghosts > out_channels

    def forward(self, x: Tensor) -> Tensor:
        maps = self.primary_conv(x)  # (N, ceil(C_out / s), H', W'), the intrinsic ones
        if self.has_ghosts:
            maps = torch.cat([maps, self.cheap_operation(maps)], dim=1)
        if self.has_surplus:  # an unconditional slice would leave a useless node in every exported graph
            maps = maps[:, : self.out_channels]
        if self.short_conv is not None:
            maps = maps * self.short_conv.gate(x, (maps.shape[2], maps.shape[3]))
        return maps


def theoretical_speedup(in_channels: int, kernel_size: int, ratio: int, cheap_kernel_size: int) -> float:
    """r_s, equation 4 of the paper: multiply-adds of the plain convolution over those of the Ghost module.

    Also r_c, equation 5, the same ratio of weights: every weight of both layers is used once for each pixel.
    For a k x k convolution from c channels, ratio s and cheap kernel d: ``c k^2 / (c k^2 / s + (s - 1) / s * d^2)``,
    which is close to s where c is large and d is close to k. With k = 1 and few channels it stays well below s.

    >>> round(theoretical_speedup(512, 3, 2, 3), 3), round(theoretical_speedup(16, 1, 2, 3), 3)
    (1.996, 1.28)
    """
    plain = in_channels * kernel_size**2
    return plain / (plain / ratio + (ratio - 1) / ratio * cheap_kernel_size**2)
