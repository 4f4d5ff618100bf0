"""The Ghost bottleneck: two Ghost modules and a shortcut.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), section 3.2 and figure 3.
"""

from typing import Any

from torch import Tensor, nn

from ghostnets.layers.conv import make_divisible
from ghostnets.layers.dispatch import dispatch, is_scripting
from ghostnets.layers.ghost import GhostModule
from ghostnets.layers.reparam import conv_norm
from ghostnets.layers.squeeze_excite import SqueezeExcite
from ghostnets.layers.stochastic_depth import drop_path

__all__ = ["GhostBottleneck"]


class GhostBottleneck(nn.Module):
    """Two Ghost modules with a shortcut around both: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ::

        x ─┬─> ghost1 (expands, ReLU) ─> [conv_dw, stride 2] ─> [se] ─> ghost2 (projects, linear) ─> + ─> out
           └─> shortcut: identity, or depthwise k x k (stride) + 1x1 where the shape changes ────────┘

    Figure 3 of the paper. The first module expands to ``hidden_channels``; the second projects to ``out_channels`` and
    has no ReLU, since a ReLU on few channels loses information (MobileNetV2). Stride 2 adds a depthwise convolution
    between them; at stride 1 the only spatial kernels are those of the cheap operations.

    Args:
        in_channels: Number of input channels, C_in.
        hidden_channels: Channels between the two modules (the paper's "#exp").
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the depthwise convolutions (at stride 2, and in the shortcut).
        stride: Stride, 1 or 2.
        dilation: Dilation of the first module, of the depthwise convolution after it, and of the shortcut.
        atrous: Replace stride 2 by doubling the dilation of the layers after it, which keeps the resolution: every
            second pixel of the output, in each direction, equals the output of the strided block.
        se_ratio: Squeeze-and-excitation channels divided by ``hidden_channels``; 0 for no squeeze-and-excitation.
        ratio: Ratio s of both Ghost modules.
        cheap_kernel_size: Kernel size d of the cheap operations in both Ghost modules.
        drop_path_rate: Stochastic depth: probability, per image and in training only, of dropping the residual branch
            (Huang et al., arXiv 1603.09382).
        dfc: Add the DFC gate of GhostNetV2 to the first Ghost module.
        branches: Number of re-parameterisable branches of each convolution outside the shortcut, as in GhostNetV3; 0
            for plain convolutions.

    Raises:
        ConfigurationError: A size is below 1, or ``cheap_kernel_size`` is even.
    """

    conv_norm_pairs = (("conv_dw", "bn_dw"),)  # for compress.fuse

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
        self.drop_path = drop_path(drop_path_rate)
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
        out = self.bn_dw(self.conv_dw(out))  # identities at stride 1
        out = self.ghost2(self.se(out))
        return self.drop_path(out) + self.shortcut(x)
