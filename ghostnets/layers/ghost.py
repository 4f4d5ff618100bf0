"""The Ghost module: a convolution computes intrinsic feature maps, cheap operations derive ghost maps from them.

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
    """Drop-in replacement for a convolution: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ::

        x ──> primary_conv ──> intrinsic maps (C_out / s) ──┬──────────────────────────┐
              1x1 conv, BN, ReLU                            └──> cheap_operation ──> ghosts
                                                                 d x d depthwise,      │
                                                                 BN, ReLU            concat ──> first C_out maps

    Each intrinsic map y' yields s - 1 ghost maps, each by its own linear d x d kernel (equation 3 of the paper), and is
    itself part of the output (the identity mapping of the same section). The primary convolution, which has most of the
    cost, computes only m = ceil(C_out / s) maps, which reduces the multiply-adds by nearly s (``theoretical_speedup``).

    If s does not divide C_out, the surplus ghost maps are computed and discarded, as in the published networks.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out, at least 1; need not be a multiple of ``ratio``.
        kernel_size: Kernel size of the primary convolution (k), odd; 1 in GhostNet.
        ratio: Number of output maps per intrinsic map, the intrinsic map included (s). 1 gives a plain convolution
            without a cheap operation.
        cheap_kernel_size: Kernel size of the cheap operation (d), odd; 3 in all published networks (table 3 of the
            paper compares 1, 3, 5 and 7).
        stride: Stride of the primary convolution.
        dilation: Dilation of all convolutions.
        atrous: Replace a stride of 2 by twice the dilation in the cheap operation, which keeps the resolution.
        act: Whether ReLU follows both convolutions. False in the second module of a bottleneck, which is linear.
        dfc: Multiply the output by the DFC gate of GhostNetV2.
        branches: Number of re-parameterisable branches of each convolution, as in GhostNetV3; 0 for a plain convolution
            with normalisation.

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
        _check_positive(
            in_channels=in_channels, out_channels=out_channels, ratio=ratio, stride=stride, dilation=dilation
        )
        _check_odd(kernel_size=kernel_size, cheap_kernel_size=cheap_kernel_size)
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
        maps = self.primary_conv(x)  # (N, ceil(C_out / s), H', W'), intrinsic maps
        if self.has_ghosts:
            maps = torch.cat([maps, self.cheap_operation(maps)], dim=1)
        if self.has_surplus:  # an unconditional slice would add a no-op node to every exported graph
            maps = maps[:, : self.out_channels]
        if self.short_conv is not None:
            maps = maps * self.short_conv.gate(x, (maps.shape[2], maps.shape[3]))
        return maps


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1 or value != int(value):
            raise ConfigurationError(f"GhostModule: {name} is {value}; it must be an integer of at least 1.")


def _check_odd(**kernel_sizes: int) -> None:
    for name, value in kernel_sizes.items():
        if value < 1 or value % 2 == 0:
            raise ConfigurationError(
                f"GhostModule: {name} is {value}; it must be odd, to preserve the size of the map."
            )


def theoretical_speedup(in_channels: int, kernel_size: int, ratio: int, cheap_kernel_size: int) -> float:
    """Ratio of the multiply-adds of a plain convolution to those of the Ghost module, r_s of the paper's equation 4.

    It equals r_c of equation 5, the ratio of weights, since both layers use each weight once per pixel. For c input
    channels, a k x k convolution, ratio s and cheap kernel size d it is ``c k^2 / (c k^2 / s + (s - 1) / s * d^2)``:
    close to s for large c and d close to k, well below s for k = 1 and few channels.

    Args:
        in_channels: Number of input channels, c.
        kernel_size: Kernel size of the convolution, k.
        ratio: Ratio of the Ghost module, s.
        cheap_kernel_size: Kernel size of the cheap operation, d.

    >>> round(theoretical_speedup(512, 3, 2, 3), 3), round(theoretical_speedup(16, 1, 2, 3), 3)
    (1.996, 1.28)
    """
    plain = in_channels * kernel_size**2
    return plain / (plain / ratio + (ratio - 1) / ratio * cheap_kernel_size**2)
