"""The Ghost module: a few intrinsic maps by an ordinary convolution, the rest from them by cheap operations.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), section 3.1.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.layers.conv import make_divisible
from ghostnets.layers.dfc import DFCGate
from ghostnets.layers.reparam import conv_norm
from ghostnets.layers.squeeze_excite import SqueezeExcite

__all__ = ["GhostBottleneck", "GhostModule", "theoretical_speedup"]


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
        intrinsic = math.ceil(out_channels / ratio)
        ghosts = intrinsic * (ratio - 1)
        self.primary_conv = nn.Sequential(
            *conv_norm(in_channels, intrinsic, kernel_size, stride=stride, branches=branches),
            nn.ReLU(inplace=True) if act else nn.Identity(),
        )
        self.cheap_operation = nn.Sequential()
        if ghosts:
            self.cheap_operation = nn.Sequential(
                *conv_norm(
                    intrinsic, ghosts, cheap_kernel_size, groups=intrinsic, branches=branches, scale=True, skip=True
                ),
                nn.ReLU(inplace=True) if act else nn.Identity(),
            )
        self.short_conv = DFCGate(in_channels, out_channels, kernel_size=kernel_size, stride=stride) if dfc else None
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


class GhostBottleneck(nn.Module):
    """Two Ghost modules with a shortcut around both: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ::

        x ─┬─> ghost1 (expands, ReLU) ─> [conv_dw, stride 2] ─> [se] ─> ghost2 (projects, linear) ─> + ─> out
           └─> shortcut: identity, or depthwise k x k (stride) + 1x1 where the shape changes ────────┘

    Figure 3 of the paper. The first module widens to ``hidden_channels``, the second narrows to ``out_channels`` and
    has no ReLU, for the reason MobileNetV2 gives: a ReLU on the narrow side destroys information. A depthwise
    convolution stands between them at stride 2 only; at stride 1 the cheap operations alone see the neighbourhood.

    Args:
        in_channels: C_in.
        hidden_channels: Width between the two modules (the paper's "#exp").
        out_channels: C_out.
        kernel_size: Of the depthwise convolutions (stride 2, and the shortcut's).
        stride: 1 or 2.
        se_ratio: Squeeze-and-excitation width as a share of ``hidden_channels``; 0 for none.
        ratio: s of both Ghost modules.
        cheap_kernel_size: d of both Ghost modules.
        dfc: Give the first Ghost module the DFC gate of GhostNetV2.
        branches: Of every convolution in the modules and of the one between them, as in GhostNetV3; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        se_ratio: float = 0.0,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        dfc: bool = False,
        branches: int = 0,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        common: dict[str, Any] = {"ratio": ratio, "cheap_kernel_size": cheap_kernel_size, "branches": branches}
        self.ghost1 = GhostModule(in_channels, hidden_channels, act=True, dfc=dfc, **common)
        self.has_downsample = stride > 1
        if self.has_downsample:
            self.conv_dw, *norm = conv_norm(
                hidden_channels,
                hidden_channels,
                kernel_size,
                stride=stride,
                groups=hidden_channels,
                branches=branches,
                scale=True,
            )
            self.bn_dw = norm[0] if norm else nn.Identity()
        self.se: nn.Module = nn.Identity()
        if se_ratio > 0:
            self.se = SqueezeExcite(hidden_channels, make_divisible(hidden_channels * se_ratio))
        self.ghost2 = GhostModule(hidden_channels, out_channels, act=False, **common)
        self.shortcut = nn.Sequential()  # the identity
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.ghost1(x)
        if self.has_downsample:
            out = self.bn_dw(self.conv_dw(out))
        out = self.ghost2(self.se(out))
        return out + self.shortcut(x)


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
