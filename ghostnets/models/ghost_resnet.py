"""Ghost-ResNet: ResNet with Ghost modules in place of the convolutions of its residual blocks.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), tables 5 (ResNet-56 on
CIFAR-10) and 6 (ResNet-50 on ImageNet). The base networks are those of He et al., "Deep Residual Learning for Image
Recognition" (arXiv 1512.03385). The ImageNet bottleneck has its stride in the 3x3 convolution, as in torchvision, since
the 4.1 billion multiply-adds that the paper states for the plain ResNet-50 are those of that variant.

The stem is always a plain convolution; with ``ratio=1``, so are all other layers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostModule, drop_path, drop_path_rates
from ghostnets.models.features import FeatureLevel
from ghostnets.models.network import CIFAR10, Dilation, Network, Variant
from ghostnets.models.recompute import is_scripting

__all__ = ["CIFAR_SPEC", "IMAGENET_SPEC", "VARIANTS", "GhostResNet", "ResNetSpec", "ResidualBlock", "ZeroPadShortcut"]


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut (option A of the ResNet paper): (N, C_in, H, W) -> (N, C_out, H', W').

    Subsamples by ``stride`` and pads the channels with zeros. H' = ceil(H / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.extra_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        # Pooling rather than a slice: exports with dynamic sizes need the size formula of the parallel convolution.
        return F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, 0, self.extra_channels))


class ResidualBlock(nn.Module):
    """Basic or bottleneck block: (N, C_in, H, W) -> (N, channels * expansion, H', W'), H' = ceil(H / stride).

    ::

        expansion 1:       3x3 /stride ─> 3x3 ────────┐
        expansion above:   1x1 ─> 3x3 /stride ─> 1x1 ─┴─ + shortcut(x) ─> ReLU

    The last convolution has no ReLU. The shortcut is the identity, or, if the shapes differ, a 1x1 convolution without
    ReLU or a ``ZeroPadShortcut``.

    Args:
        in_channels: Number of input channels, C_in.
        channels: Channels of the 3x3 convolutions.
        expansion: Output channels divided by ``channels``: 1 for the basic block, 4 for the bottleneck block.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolutions up to the strided one.
        atrous: Replace a stride of 2 by twice the dilation in the layers after it, which keeps the resolution: every
            second pixel of the output then equals the output of the strided block.
        projection: Whether a shortcut between different shapes is a 1x1 convolution.
        drop_path_rate: Stochastic depth: probability, per image and in training only, of dropping the convolutions.
        conv: Factory of each convolution with normalisation and activation, with the signature of ``GhostModule``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expansion: int,
        stride: int,
        dilation: int = 1,
        atrous: bool = False,
        projection: bool,
        drop_path_rate: float = 0.0,
        conv: Callable[..., nn.Module] = GhostModule,
    ) -> None:
        super().__init__()
        out_channels = channels * expansion
        resolution = {"stride": stride, "dilation": dilation, "atrous": atrous}
        real_stride, dilation_after = (1, stride * dilation) if atrous else (stride, dilation)
        if expansion == 1:
            self.convs = nn.Sequential(
                conv(in_channels, channels, kernel_size=3, **resolution),
                conv(channels, channels, kernel_size=3, dilation=dilation_after, act=False),
            )
        else:
            self.convs = nn.Sequential(
                conv(in_channels, channels, dilation=dilation),
                conv(channels, channels, kernel_size=3, **resolution),
                conv(channels, out_channels, dilation=dilation_after, act=False),
            )
        self.shortcut: nn.Module = nn.Identity()
        if (in_channels, stride) != (out_channels, 1):
            self.shortcut = (
                conv(in_channels, out_channels, act=False, **resolution)
                if projection
                else ZeroPadShortcut(in_channels, out_channels, stride=real_stride)
            )
        self.drop_path = drop_path(drop_path_rate)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop_path(self.convs(x)) + self.shortcut(x))


class ResNetSpec(NamedTuple):
    """Stem, channels and shortcuts of a ResNet for one image size."""

    channels: int  # stem and 3x3 convolutions of the first stage; doubled in each later stage
    kernel_size: int  # kernel size of the stem
    stride: int  # stride of the stem
    pool: bool  # whether the stem ends with 3x3 max pooling of stride 2
    projection: bool  # whether shortcuts between different shapes are 1x1 convolutions


#                      channels k  stride
IMAGENET_SPEC = ResNetSpec(64, 7, 2, pool=True, projection=True)
# Zero-padded shortcuts, as He et al. use on CIFAR, give the 0.85 M and 125 M that the paper states for ResNet-56
# (0.853 M and 125.5 M; projections 0.856 M and 125.7 M) and, with s = 2, 0.438 M and 65.3 M.
CIFAR_SPEC = ResNetSpec(16, 3, 1, pool=False, projection=False)


class GhostResNet(Network):
    """Ghost-ResNet: images (N, in_chans, H, W) -> logits (N, num_classes), any H and W from 1.

    ::

        stem: conv, BN, ReLU (, max pool) ─> blocks.0 ... (residual blocks, each stage but the first halving the map)
          ─> global average pool ─> dropout ─> classifier

    Args:
        num_classes: Number of classes; 0 removes the classifier (the output is the pooled features).
        in_chans: Number of input channels.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last block, in [0, 1); the rate grows linearly from 0 at the first.
        output_stride: 32, 16 or 8, as in ``GhostNet``. CIFAR networks have a total stride of 4 in any case.
        depths: Number of residual blocks of each stage.
        expansion: 1 for basic blocks, 4 for bottleneck blocks.
        spec: Stem, channels and shortcuts: ``IMAGENET_SPEC`` or ``CIFAR_SPEC``.
        ratio: Ratio s of all Ghost modules; 1 gives the plain ResNet.
        cheap_kernel_size: Kernel size d of all cheap operations.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    head_path = ("global_pool", "drop", "classifier")

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        depths: Sequence[int] = (3, 4, 6, 3),
        expansion: int = 4,
        spec: ResNetSpec = IMAGENET_SPEC,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        if not depths or min(depths) < 1 or expansion < 1:
            raise ConfigurationError(
                f"GhostResNet: depths is {tuple(depths)} and expansion is {expansion};"
                " depths must not be empty, and all numbers must be at least 1."
            )
        spec = ResNetSpec(*spec)  # a list when read from JSON
        conv = partial(GhostModule, ratio=ratio, cheap_kernel_size=cheap_kernel_size)
        in_channels, resolution = spec.channels, Dilation(output_stride)
        stride = resolution.next(spec.stride)["stride"]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, in_channels, spec.kernel_size, stride, spec.kernel_size // 2, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
        )
        stem = FeatureLevel(in_channels, resolution.stride, "stem.2")
        if spec.pool:
            self.stem.append(nn.MaxPool2d(3, resolution.next(2)["stride"], 1))

        self.blocks, self.feature_levels = _make_stages(
            depths, spec, resolution, expansion=expansion, drop_path_rate=drop_path_rate, conv=conv
        )
        self.timm_levels = (stem, *self.feature_levels)
        self.path = ("stem", *(f"blocks.{stage}" for stage in range(len(depths))))

        self.num_features = self.feature_levels[-1].channels
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(drop_rate)
        self.head_features = self.num_features
        self.classifier: nn.Module
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map: (N, in_chans, H, W) -> (N, num_features, ceil(H / 32), ceil(W / 32)).

        CIFAR networks: ceil(H / 4), ceil(W / 4).
        """
        if self.grad_checkpointing and not is_scripting():
            return self.recompute_features(x)
        return self.blocks(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (N, num_classes) from the last feature map; features (N, num_features) if ``pre_logits``."""
        x = self.global_pool(x)
        if self.is_pooled:
            x = x.flatten(1)
        return x if pre_logits else self.classifier(self.drop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"}


def _make_stages(
    depths: Sequence[int],
    spec: ResNetSpec,
    resolution: Dilation,
    *,
    expansion: int,
    drop_path_rate: float,
    conv: Callable[..., nn.Module],
) -> tuple[nn.Sequential, tuple[FeatureLevel, ...]]:
    """Build the residual blocks of all stages; return them, and the output of each stage as a feature level."""
    blocks: list[nn.Sequential] = []
    levels: list[FeatureLevel] = []
    in_channels, rates = spec.channels, iter(drop_path_rates(drop_path_rate, sum(depths)))
    for stage, depth in enumerate(depths):
        channels = spec.channels * 2**stage
        residuals: list[nn.Module] = []
        for index in range(depth):
            is_strided = stage > 0 and index == 0
            residuals.append(
                ResidualBlock(
                    in_channels,
                    channels,
                    expansion=expansion,
                    projection=spec.projection,
                    drop_path_rate=next(rates),
                    conv=conv,
                    **resolution.next(2 if is_strided else 1),
                )
            )
            in_channels = channels * expansion
        blocks.append(nn.Sequential(*residuals))
        levels.append(FeatureLevel(in_channels, resolution.stride, f"blocks.{stage}"))
    return nn.Sequential(*blocks), tuple(levels)


def _imagenet(depth: int) -> dict[str, Any]:
    """Arguments of an ImageNet ResNet of the given depth."""
    depths, expansion = {
        18: ((2, 2, 2, 2), 1),
        34: ((3, 4, 6, 3), 1),
        50: ((3, 4, 6, 3), 4),
        101: ((3, 4, 23, 3), 4),
    }[depth]
    return {"spec": IMAGENET_SPEC, "depths": depths, "expansion": expansion}


def _cifar(depth: int, *, ratio: int) -> dict[str, Any]:
    """Arguments of ResNet-(6 n + 2), three stages of n basic blocks."""
    return {"spec": CIFAR_SPEC, "depths": (depth // 6,) * 3, "expansion": 1, "ratio": ratio}


# ghost_resnet50 with ratio=4 is the second network of table 6, Ghost-ResNet-50 with s = 4.
RESNET50_REMARK = (
    "the published parameters cannot be reached with a dense classifier, whose 2048 x 1000 weights alone are 2.05 M;"
    " nor with ratio=4: published 6.5 M and 1200 M, computed 8.15 M and 1182 M"
)
RESNET56_REMARK = (
    "computed with zero-padded shortcuts, which agree best (with projections: 0.440 M and 65.47 M); without the cheap"
    " operations the computed MACs are 62.96 M, so the paper seems not to count them"
)
VARIANTS: dict[str, Variant] = {
    #                                         params    MACs   top-1; published params, MACs (tables 5 and 6)
    "ghost_resnet18": Variant(_imagenet(18), 6.1321, 973.86),
    "ghost_resnet34": Variant(_imagenet(34), 11.2066, 1904.35),
    "ghost_resnet50": Variant(_imagenet(50), 13.9535, 2151.02, 75.0, 13.0, 2200.0, remark=RESNET50_REMARK),
    "ghost_resnet101": Variant(_imagenet(101), 23.5932, 4030.16),
    "resnet20": Variant(_cifar(20, ratio=1), 0.2697, 40.55, benchmark=CIFAR10),
    "resnet32": Variant(_cifar(32, ratio=1), 0.4642, 68.86, benchmark=CIFAR10),
    "resnet44": Variant(_cifar(44, ratio=1), 0.6586, 97.17, benchmark=CIFAR10),
    "resnet56": Variant(_cifar(56, ratio=1), 0.8530, 125.49, 93.0, 0.85, 125.0, CIFAR10),
    "resnet110": Variant(_cifar(110, ratio=1), 1.7280, 252.89, benchmark=CIFAR10),
    "ghost_resnet20": Variant(_cifar(20, ratio=2), 0.1391, 21.27, benchmark=CIFAR10),
    "ghost_resnet32": Variant(_cifar(32, ratio=2), 0.2388, 35.94, benchmark=CIFAR10),
    "ghost_resnet44": Variant(_cifar(44, ratio=2), 0.3385, 50.61, benchmark=CIFAR10),
    "ghost_resnet56": Variant(_cifar(56, ratio=2), 0.4382, 65.29, 92.7, 0.43, 63.0, CIFAR10, RESNET56_REMARK),
    "ghost_resnet110": Variant(_cifar(110, ratio=2), 0.8867, 131.31, benchmark=CIFAR10),
}
