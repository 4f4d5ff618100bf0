"""The Ghost bottleneck: two Ghost modules and a shortcut.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), section 3.2 and figure 3.
"""

from typing import Any

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ghostnets.layers.conv import make_divisible
from ghostnets.layers.dispatch import dispatch, is_scripting
from ghostnets.layers.ghost import GhostModule
from ghostnets.layers.reparam import conv_norm
from ghostnets.layers.squeeze_excite import SqueezeExcite

__all__ = ["GhostBottleneck"]


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
        dilation: Of all convolutions up to the depthwise one between the modules, and of the shortcut's.
        atrous: Keep the resolution where stride is 2, and double the dilation of what follows instead: every second
            pixel of the output is then what the strided block computes.
        se_ratio: Squeeze-and-excitation width as a share of ``hidden_channels``; 0 for none.
        ratio: s of both Ghost modules.
        cheap_kernel_size: d of both Ghost modules.
        drop_path_rate: Chance that training leaves out the modules, so that the shortcut alone remains, for each image
            (stochastic depth, Huang et al., arXiv 1603.09382).
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
        dilation: int = 1,
        atrous: bool = False,
        se_ratio: float = 0.0,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        drop_path_rate: float = 0.0,
        dfc: bool = False,
        branches: int = 0,
    ) -> None:
        super().__init__()
        common: dict[str, Any] = {"ratio": ratio, "cheap_kernel_size": cheap_kernel_size, "branches": branches}
        self.ghost1 = GhostModule(in_channels, hidden_channels, act=True, dilation=dilation, dfc=dfc, **common)
        self.conv_dw: nn.Module = nn.Identity()
        self.bn_dw: nn.Module = nn.Identity()
        changes_shape = stride > 1 or in_channels != out_channels
        real_stride, dilation_after = (1, stride * dilation) if atrous else (stride, dilation)
        if stride > 1:
            self.conv_dw, *norm = conv_norm(
                hidden_channels,
                hidden_channels,
                kernel_size,
                stride=real_stride,
                groups=hidden_channels,
                dilation=dilation,
                branches=branches,
                scale=True,
            )
            self.bn_dw = norm[0] if norm else nn.Identity()
        self.se: nn.Module = nn.Identity()
        if se_ratio > 0:
            self.se = SqueezeExcite(hidden_channels, make_divisible(hidden_channels * se_ratio))
        self.ghost2 = GhostModule(hidden_channels, out_channels, act=False, dilation=dilation_after, **common)
        self.drop_path = StochasticDepth(drop_path_rate, "row") if drop_path_rate else nn.Identity()
        self.shortcut = nn.Sequential()  # the identity
        if changes_shape:
            self.shortcut = nn.Sequential(
                *conv_norm(
                    in_channels, in_channels, kernel_size, stride=real_stride, groups=in_channels, dilation=dilation
                ),
                *conv_norm(in_channels, out_channels, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        if not is_scripting():
            overridden = dispatch(GhostBottleneck, self, x)
            if overridden is not None:
                return overridden
        out = self.ghost1(x)
        out = self.bn_dw(self.conv_dw(out))  # at stride 2
        out = self.ghost2(self.se(out))
        return self.drop_path(out) + self.shortcut(x)
