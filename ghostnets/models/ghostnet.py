"""GhostNet V1: a stack of Ghost bottlenecks.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), table 1. Module names, and so
the keys of a state dict, are those of the official PyTorch implementation.

All activations are ReLU: the paper omits hard-swish because of its latency.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.layers import ConvBnAct, GhostBottleneck, drop_path_rates, make_divisible
from ghostnets.models.features import FeatureLevel
from ghostnets.models.network import Dilation, Network, Variant
from ghostnets.models.recompute import is_scripting

__all__ = ["STAGES", "VARIANTS", "BlockSpec", "GhostNet"]


class BlockSpec(NamedTuple):
    """One Ghost bottleneck at width 1.0, a row of table 1."""

    kernel_size: int  # depthwise convolutions at stride 2 and in the shortcut
    hidden_channels: int
    out_channels: int
    se_ratio: float
    stride: int


STAGES: tuple[tuple[BlockSpec, ...], ...] = (
    #          k  hidden  out  se    stride     input at 224
    (BlockSpec(3, 16, 16, 0, 1),),  # ........ 112 x 112
    (BlockSpec(3, 48, 24, 0, 2),),  # ........ 112 x 112
    (BlockSpec(3, 72, 24, 0, 1),),  # ........  56 x 56
    (BlockSpec(5, 72, 40, 0.25, 2),),  # .....  56 x 56
    (BlockSpec(5, 120, 40, 0.25, 1),),  # ....  28 x 28
    (BlockSpec(3, 240, 80, 0, 2),),  # .......  28 x 28
    (
        BlockSpec(3, 200, 80, 0, 1),  # ......  14 x 14
        BlockSpec(3, 184, 80, 0, 1),
        BlockSpec(3, 184, 80, 0, 1),
        BlockSpec(3, 480, 112, 0.25, 1),
        BlockSpec(3, 672, 112, 0.25, 1),
    ),
    (BlockSpec(5, 672, 160, 0.25, 2),),  # ...  14 x 14
    (
        BlockSpec(5, 960, 160, 0, 1),  # .....   7 x 7
        BlockSpec(5, 960, 160, 0.25, 1),
        BlockSpec(5, 960, 160, 0, 1),
        BlockSpec(5, 960, 160, 0.25, 1),
    ),
)
STEM_CHANNELS, WIDE_CHANNELS, HEAD_CHANNELS = 16, 960, 1280


VARIANTS: dict[str, Variant] = {
    #                                         params    MACs  top-1 (table 7), published params, MACs
    "ghostnet_050": Variant({"width": 0.5}, 2.5873, 42.33, 66.2, 2.6, 42.0),
    "ghostnet_100": Variant({"width": 1.0}, 5.1825, 141.15, 73.9, 5.2, 141.0),
    "ghostnet_130": Variant({"width": 1.3}, 7.3588, 227.00, 75.7, 7.3, 226.0),
}


class GhostNet(Network):
    """GhostNet: images (N, in_chans, H, W) -> logits (N, num_classes), any H and W from 1.

    ::

        conv_stem 3x3 /2, bn1, ReLU ─> blocks.0 ... blocks.8 (Ghost bottlenecks) ─> blocks.9 (1x1 to 960, BN, ReLU)
          ─> global average pool ─> conv_head (1x1 to 1280), ReLU ─> dropout ─> classifier

    The width multiplier scales all channels except the 1280 of the head; weights and multiply-adds of the convolutions
    grow with about its square. Published ImageNet accuracies: 66.2 % (0.5), 73.9 % (1.0), 75.7 % (1.3).

    Args:
        num_classes: Number of classes; 0 removes the classifier (the output is the features of the head).
        in_chans: Number of input channels.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last bottleneck, in [0, 1); the rate grows linearly from 0 at the
            first.
        output_stride: Ratio of the input size to the size of the last map, for dense prediction: 32, 16 or 8. Strides
            beyond it are replaced by dilation. Weights keep their shapes.
        width: Width multiplier, above 0.
        ratio: Ratio s of all Ghost modules; 1 gives the network of plain convolutions with the same shapes.
        cheap_kernel_size: Kernel size d of all cheap operations.
        small_input: Use stride 1 in the stem, for images of 28 to 64 pixels: the total stride is 16 instead of 32, so a
            32 x 32 image has a last map of 2 x 2. Weights keep their shapes.
        stages: Block specifications of each stage at width 1.0; as lists of numbers, when read from JSON.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    conv_norm_pairs = (("conv_stem", "bn1"),)
    has_wide_map = True

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        width: float = 1.0,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        small_input: bool = False,
        stages: Sequence[Sequence[BlockSpec]] = STAGES,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        if not width > 0:
            raise ConfigurationError(f"{type(self).__name__}: width is {width}; it must be above 0.")
        stages = [[BlockSpec(*spec) for spec in stage] for stage in stages]
        self.num_features = make_divisible(WIDE_CHANNELS * width)

        in_channels = make_divisible(STEM_CHANNELS * width)
        resolution = Dilation(output_stride)
        stride = resolution.next(1 if small_input else 2)["stride"]
        self.conv_stem = nn.Conv2d(in_chans, in_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU(inplace=True)

        stem = FeatureLevel(in_channels, resolution.stride, "conv_stem")
        self.blocks, self.feature_levels, ends = self._make_stages(
            stages,
            in_channels,
            resolution,
            width=width,
            drop_path_rate=drop_path_rate,
            ratio=ratio,
            cheap_kernel_size=cheap_kernel_size,
        )
        self.timm_levels = (stem, *ends)
        self.path = ("conv_stem", "bn1", "act1", *(f"blocks.{i}" for i in range(len(self.blocks))))

        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(self.num_features, HEAD_CHANNELS, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(drop_rate)
        self.head_features = HEAD_CHANNELS
        self.classifier: nn.Module
        self.reset_classifier(num_classes)

    def make_block(
        self, index: int, in_channels: int, hidden_channels: int, out_channels: int, **options: Any
    ) -> nn.Module:
        """Build the bottleneck of index ``index`` (from 0); V2 and V3 override it."""
        return GhostBottleneck(in_channels, hidden_channels, out_channels, **options)

    def _make_stages(
        self,
        stages: Sequence[Sequence[BlockSpec]],
        in_channels: int,
        resolution: Dilation,
        *,
        width: float,
        drop_path_rate: float,
        **options: Any,
    ) -> tuple[nn.Sequential, tuple[FeatureLevel, ...], tuple[FeatureLevel, ...]]:
        """Build the bottlenecks of all stages, the 1x1 expansion, and the levels of this package and of timm."""
        blocks: list[nn.Sequential] = []
        levels: list[FeatureLevel] = []
        ends: list[FeatureLevel] = []
        index, rates = 0, drop_path_rates(drop_path_rate, sum(map(len, stages)))
        for stage in stages:
            bottlenecks: list[nn.Module] = []
            for spec in stage:
                if spec.stride > 1:
                    levels.append(FeatureLevel(in_channels, resolution.stride, f"blocks.{len(blocks) - 1}"))
                out_channels = make_divisible(spec.out_channels * width)
                bottlenecks.append(
                    self.make_block(
                        index,
                        in_channels,
                        make_divisible(spec.hidden_channels * width),
                        out_channels,
                        kernel_size=spec.kernel_size,
                        drop_path_rate=rates[index],
                        se_ratio=spec.se_ratio,
                        **resolution.next(spec.stride),
                        **options,
                    )
                )
                in_channels = out_channels
                index += 1
            if stage[-1].stride > 1:
                ends.append(FeatureLevel(in_channels, resolution.stride, f"blocks.{len(blocks)}"))
            blocks.append(nn.Sequential(*bottlenecks))
        levels.append(FeatureLevel(in_channels, resolution.stride, f"blocks.{len(stages) - 1}"))
        blocks.append(nn.Sequential(ConvBnAct(in_channels, self.num_features)))
        levels.append(FeatureLevel(self.num_features, resolution.stride, f"blocks.{len(stages)}"))
        return nn.Sequential(*blocks), tuple(levels), tuple(ends)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map: (N, in_chans, H, W) -> (N, num_features, ceil(H / 32), ceil(W / 32))."""
        if self.grad_checkpointing and not is_scripting():
            return self.recompute_features(x)
        return self.blocks(self.act1(self.bn1(self.conv_stem(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (N, num_classes) from the last feature map; features (N, 1280) if ``pre_logits``."""
        x = self.act2(self.conv_head(self.global_pool(x)))
        if self.is_pooled:
            x = x.flatten(1)
        return x if pre_logits else self.classifier(self.drop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": [(blocks, None), (r"conv_head", (99999,))]}
