"""Ghost-ResNet: ResNet whose residual blocks are built of Ghost modules in place of convolutions.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), tables 5 (ResNet-56 on
CIFAR-10) and 6 (ResNet-50 on ImageNet). The networks themselves are those of He et al., "Deep Residual Learning for
Image Recognition" (arXiv 1512.03385), for ImageNet with the stride in the 3x3 convolution of the bottleneck, as in
torchvision: the 4.1 billion multiply-adds that the paper states for the plain ResNet-50 are of that form.

The stem stays an ordinary convolution; with ``ratio=1`` so does everything else.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostModule
from ghostnets.models.ghostnet import FeatureLevel

__all__ = ["CIFAR", "IMAGENET", "VARIANTS", "Form", "GhostResNet", "ResidualBlock", "Variant", "ZeroPadShortcut"]


class ZeroPadShortcut(nn.Module):
    """The shortcut without weights (option A of the ResNet paper): (N, C_in, H, W) -> (N, C_out, H', W').

    Every ``stride``-th pixel, and zeros for the channels that the input does not have. H' = ceil(H / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.extra_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        # Not a slice: the size must be the expression of the convolution beside it, for exports with dynamic sizes.
        return F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, 0, self.extra_channels))


class ResidualBlock(nn.Module):
    """(N, C_in, H, W) -> (N, channels * expansion, H', W'), H' = ceil(H / stride).

    ::

        expansion 1:       3x3 /stride ─> 3x3 ────────┐
        expansion above:   1x1 ─> 3x3 /stride ─> 1x1 ─┴─ + shortcut(x) ─> ReLU

    The last convolution is without ReLU. Where the shapes differ the shortcut is a 1x1 convolution, also without ReLU,
    or zero-padded; elsewhere it is the identity.

    Args:
        in_channels: C_in.
        channels: Of the 3x3 convolutions.
        expansion: Output channels over ``channels``; 1 for the basic block, 4 for the usual bottleneck.
        stride: Of the whole block.
        projection: Whether a shortcut between different shapes has weights.
        conv: Builds each convolution with what follows it, called as ``GhostModule`` is.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        expansion: int,
        stride: int,
        projection: bool,
        conv: Callable[..., nn.Module] = GhostModule,
    ) -> None:
        super().__init__()
        out_channels = channels * expansion
        if expansion == 1:
            self.convs = nn.Sequential(
                conv(in_channels, channels, kernel_size=3, stride=stride),
                conv(channels, channels, kernel_size=3, act=False),
            )
        else:
            self.convs = nn.Sequential(
                conv(in_channels, channels),
                conv(channels, channels, kernel_size=3, stride=stride),
                conv(channels, out_channels, act=False),
            )
        self.shortcut: nn.Module = nn.Identity()
        if (in_channels, stride) != (out_channels, 1):
            self.shortcut = (
                conv(in_channels, out_channels, stride=stride, act=False)
                if projection
                else ZeroPadShortcut(in_channels, out_channels, stride=stride)
            )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convs(x) + self.shortcut(x))


class Form(NamedTuple):
    """What the size of the images decides."""

    channels: int  # of the stem and, doubled from each stage to the next, of the 3x3 convolutions of the stages
    kernel_size: int  # of the stem
    stride: int  # of the stem
    pool: bool  # whether a 3x3 max pooling of stride 2 follows the stem
    projection: bool  # whether shortcuts between different shapes have weights


#               channels k  stride
IMAGENET = Form(64, 7, 2, pool=True, projection=True)
# Zero-padded shortcuts, as He et al. have them on CIFAR, give the 0.85 M and 125 M that the paper states for ResNet-56
# (0.853 M and 125.5 M; projections 0.856 M and 125.7 M) and, with s = 2, 0.438 M and 65.3 M.
CIFAR = Form(16, 3, 1, pool=False, projection=False)


class GhostResNet(nn.Module):
    """Ghost-ResNet: images (N, in_chans, H, W) -> logits (N, num_classes), any H and W from 1.

    ::

        stem: conv, BN, ReLU (, max pool) ─> blocks.0 ... (residual blocks, each stage but the first halving the map)
          ─> global average pool ─> dropout ─> classifier

    Args:
        num_classes: Size of the classifier; 0 for none (pooled features come out).
        in_chans: Channels of the input.
        drop_rate: Dropout before the classifier, from 0 up to but not including 1.
        depths: Number of residual blocks of each stage.
        expansion: 4 for bottlenecks, 1 for basic blocks.
        form: ``IMAGENET`` or ``CIFAR``: stem, channels and kind of shortcut.
        ratio: s of every Ghost module; 1 gives the plain ResNet.
        cheap_kernel_size: d of every Ghost module.

    Raises:
        ConfigurationError: An argument is out of its range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        depths: Sequence[int] = (3, 4, 6, 3),
        expansion: int = 4,
        form: Form = IMAGENET,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if num_classes < 0 or in_chans < 1 or not 0 <= drop_rate < 1:
            raise ConfigurationError(
                f"GhostResNet: num_classes is {num_classes}, in_chans is {in_chans} and drop_rate is {drop_rate};"
                " they must be at least 0, at least 1 and in [0, 1) respectively."
            )
        if not depths or min(depths) < 1 or expansion < 1:
            raise ConfigurationError(
                f"GhostResNet: depths is {tuple(depths)} and expansion is {expansion};"
                " there must be a stage, and every number must be at least 1."
            )
        conv = partial(GhostModule, ratio=ratio, cheap_kernel_size=cheap_kernel_size)
        in_channels, stride = form.channels, form.stride
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, in_channels, form.kernel_size, stride, form.kernel_size // 2, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
        )
        if form.pool:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
            stride *= 2

        blocks: list[nn.Sequential] = []
        levels: list[FeatureLevel] = []
        for stage, depth in enumerate(depths):
            residuals: list[nn.Module] = []
            for index in range(depth):
                halves = stage > 0 and index == 0
                channels = form.channels * 2**stage
                residuals.append(
                    ResidualBlock(
                        in_channels,
                        channels,
                        expansion=expansion,
                        stride=2 if halves else 1,
                        projection=form.projection,
                        conv=conv,
                    )
                )
                in_channels = channels * expansion
                stride *= 2 if halves else 1
            blocks.append(nn.Sequential(*residuals))
            levels.append(FeatureLevel(in_channels, stride, stage))
        self.blocks = nn.Sequential(*blocks)
        self.feature_levels = tuple(levels)

        self.num_features = in_channels
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) -> the last map, (N, num_features, H / 32, W / 32) rounded up; CIFAR: / 4."""
        return self.blocks(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (N, num_classes), or (N, num_features) before the classifier where ``pre_logits``."""
        x = self.global_pool(x).flatten(1)
        return x if pre_logits else self.classifier(self.drop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the classifier by a new, randomly initialised one; 0 removes it."""
        self.num_classes = num_classes
        self.classifier: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


class Variant(NamedTuple):
    """A network: numbers alone."""

    form: Form
    depths: tuple[int, ...]
    expansion: int
    ratio: int
    image_size: int  # of ``macs``, in both directions
    num_classes: int
    params: float  # millions, counted here
    macs: float  # millions of multiply-adds of convolutions and linear layers, counted here
    published_params: float | None = None  # millions; tables 5 and 6 of the paper
    published_macs: float | None = None  # millions
    top1: float | None = None  # published accuracy in per cent, CIFAR-10 or ImageNet


# A second network of table 6, Ghost-ResNet-50 with s = 4, is ghost_resnet50 with ratio=4: 8.15 M and 1182 M counted,
# 6.5 M and 1200 M published. Neither published size is reached with a dense classifier of 2048 x 1000.
VARIANTS: dict[str, Variant] = {
    #                          form    depths     exp. s  image cls.  params  MACs   published: params MACs top-1
    "ghost_resnet18": Variant(IMAGENET, (2, 2, 2, 2), 1, 2, 224, 1000, 6.1321, 973.86),
    "ghost_resnet34": Variant(IMAGENET, (3, 4, 6, 3), 1, 2, 224, 1000, 11.2066, 1904.35),
    "ghost_resnet50": Variant(IMAGENET, (3, 4, 6, 3), 4, 2, 224, 1000, 13.9535, 2151.02, 13.0, 2200.0, 75.0),
    "ghost_resnet101": Variant(IMAGENET, (3, 4, 23, 3), 4, 2, 224, 1000, 23.5932, 4030.16),
    "resnet20": Variant(CIFAR, (3, 3, 3), 1, 1, 32, 10, 0.2697, 40.55),
    "resnet32": Variant(CIFAR, (5, 5, 5), 1, 1, 32, 10, 0.4642, 68.86),
    "resnet44": Variant(CIFAR, (7, 7, 7), 1, 1, 32, 10, 0.6586, 97.17),
    "resnet56": Variant(CIFAR, (9, 9, 9), 1, 1, 32, 10, 0.8530, 125.49, 0.85, 125.0, 93.0),
    "resnet110": Variant(CIFAR, (18, 18, 18), 1, 1, 32, 10, 1.7280, 252.89),
    "ghost_resnet20": Variant(CIFAR, (3, 3, 3), 1, 2, 32, 10, 0.1391, 21.27),
    "ghost_resnet32": Variant(CIFAR, (5, 5, 5), 1, 2, 32, 10, 0.2388, 35.94),
    "ghost_resnet44": Variant(CIFAR, (7, 7, 7), 1, 2, 32, 10, 0.3385, 50.61),
    "ghost_resnet56": Variant(CIFAR, (9, 9, 9), 1, 2, 32, 10, 0.4382, 65.29, 0.43, 63.0, 92.7),
    "ghost_resnet110": Variant(CIFAR, (18, 18, 18), 1, 2, 32, 10, 0.8867, 131.31),
}
