"""G-Ghost RegNet: a stage computes some channels block by block and the rest of them cheaply, from its first block.

Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022 (arXiv 2201.03297), on the RegNetX of
Radosavovic et al., "Designing Network Design Spaces" (arXiv 2003.13678). GhostNet finds cheap maps within one layer,
this network across the layers of a stage: part of the last map of a stage is a 1x1 convolution of its first, plus a
mix of what the blocks between saw.

Module names, and so the keys of a state dict, are those of the official PyTorch implementation. Its files named 3.2g to
16.0g hold networks of 1.8 to 9.0 billion multiply-adds.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from ghostnets.errors import ConfigurationError
from ghostnets.models.network import Dilation, FeatureLevel, Network, Variant

__all__ = ["VARIANTS", "GGhostRegNet", "GGhostStage", "MixBatchNorm", "RegNetBlock"]

STEM_CHANNELS = 32
LEAST_GHOST_DEPTH = 3  # a first block, a last one, and something between to save


class MixBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of pooled maps, (N, C, 1, 1), that also trains with N = 1.

    One image gives one value a channel and so no variance; it is normalised by the running statistics, which it leaves
    as they are. Other batches are treated as by ``nn.BatchNorm2d``, spelled out because TorchScript has no ``super()``.
    """

    def forward(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None  # running statistics are never switched off here
        is_batch, momentum = self.training and x.shape[0] > 1, self.momentum
        if is_batch:
            self.num_batches_tracked.add_(1)
        if momentum is None:  # the plain average over batches
            momentum = 1 / max(1, int(self.num_batches_tracked))
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, is_batch, momentum, self.eps
        )


class RegNetBlock(nn.Module):
    """The X block of RegNet: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ReLU of three convolutions to C_out channels (1x1, grouped 3x3 /stride, 1x1) plus the input, which goes through a
    1x1 convolution where the shapes differ. A group has about ``group_width`` channels: C_out // group_width groups.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        group_width: Channels of a group, about.
        stride: Of the 3x3 convolution and the shortcut.
        dilation: Of the 3x3 convolution.
        atrous: Keep the resolution where stride is 2; what follows has twice the dilation.
        drop_path_rate: Chance that training leaves out the convolutions, for each image (stochastic depth).

    Raises:
        ConfigurationError: C_out does not split into groups.
    """

    conv_norm_pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))  # for compress.fuse

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        group_width: int,
        stride: int = 1,
        dilation: int = 1,
        atrous: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        real_stride = 1 if atrous else stride
        groups = max(1, out_channels // group_width)
        if out_channels < 1 or out_channels % groups:
            raise ConfigurationError(
                f"RegNetBlock: {out_channels} channels do not split into groups of {group_width};"
                " choose multiples of the group width, in a G-Ghost stage at least 1.5 times of it."
            )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(
            out_channels, out_channels, 3, real_stride, dilation, dilation, groups=groups, bias=False
        )
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if (in_channels, stride) != (out_channels, 1):
            convolution = nn.Conv2d(in_channels, out_channels, 1, real_stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.drop_path = StochasticDepth(drop_path_rate, "row") if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.drop_path(self.bn3(self.conv3(out))) + self.downsample(x))


class GGhostStage(nn.Module):
    """A stage of ``depth`` blocks, of which those between the first and the last are narrow.

    (N, C_in, H, W) -> (N, C, H', W'), H' = ceil(H / 2). R channels are raw, half of C or somewhat less, and the others
    cheap; ``layers`` are the depth - 2 narrow blocks, with three quarters of the group width::

        x ─> base /2 ─┬─ first R ───> layers.0 ─> layers.1 ─> ... ─────────┬─ concatenation ─> end
                      ├─ the others ─> cheap: 1x1, BN ── + ── ReLU ────────┘
                      │                                  │
                      └─ all C, and R of every layer ─> merge: mean over the map, 1x1, BN, ReLU, 1x1, BN

    Args:
        in_channels: C_in.
        out_channels: C.
        group_width: Channels of a group in the blocks ``base`` and ``end``.
        blocks: Further arguments of each block (resolution and stochastic depth), at least three.

    Raises:
        ConfigurationError: Channels do not split into groups, or no raw ones are left.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, group_width: int, blocks: Sequence[dict[str, Any]]
    ) -> None:
        super().__init__()
        first, *between, last = blocks
        narrow = max(1, int(group_width * 0.75))
        raw_channels = out_channels // 2 // narrow * narrow
        cheap_channels = out_channels - raw_channels
        self.raw_channels = raw_channels
        self.base = RegNetBlock(in_channels, out_channels, group_width=group_width, **first)
        layers = [RegNetBlock(raw_channels, raw_channels, group_width=narrow, **block) for block in between]
        self.layers = nn.Sequential(*layers)
        self.merge = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels + raw_channels * len(between), cheap_channels, 1, bias=False),
            MixBatchNorm(cheap_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(cheap_channels, cheap_channels, 1, bias=False),
            MixBatchNorm(cheap_channels),
        )
        convolution = nn.Conv2d(cheap_channels, cheap_channels, 1, bias=False)
        self.cheap = nn.Sequential(convolution, nn.BatchNorm2d(cheap_channels))
        self.cheap_relu = nn.ReLU(inplace=True)
        self.end = RegNetBlock(out_channels, out_channels, group_width=group_width, **last)

    def forward(self, x: Tensor) -> Tensor:
        first = self.base(x)  # (N, C, H', W')
        raw = first[:, : self.raw_channels]  # (N, R, H', W')
        maps = [first]
        for layer in self.layers:
            raw = layer(raw)
            maps.append(raw)
        mix = self.merge(torch.cat(maps, dim=1))  # (N, C - R, 1, 1)
        cheap = self.cheap_relu(self.cheap(first[:, self.raw_channels :]) + mix)  # (N, C - R, H', W')
        return self.end(torch.cat([raw, cheap], dim=1))


class GGhostRegNet(Network):
    """G-Ghost RegNetX: images (N, in_chans, H, W) -> logits (N, num_classes), any H and W from 1.

    ::

        conv1 3x3 /2, bn1, ReLU ─> layer1 ─> layer2 ─> layer3 ─> layer4 (each halves the map)
          ─> global average pool ─> dropout ─> fc

    Stages after the first are G-Ghost stages if they have three blocks or more, otherwise plain. ``feature_levels`` are
    the outputs of the four, with ``stage`` 0 for layer1.

    Training with a batch of 1 works for images above 32 pixels in a direction; the mix then uses its running statistics
    (the official implementation fails). Up to 32 x 32 the last map is one pixel, and PyTorch's batch normalisation
    refuses a batch of 1: ValueError, "Expected more than 1 value per channel when training".

    Args:
        num_classes: Size of the classifier; 0 for none (pooled features come out).
        in_chans: Channels of the input.
        drop_rate: Dropout before the classifier, from 0 up to but not including 1.
        drop_path_rate: Stochastic depth of the last block; it grows along a line from 0 at the first. Same range.
        output_stride: 32, or 16 or 8: see ``GhostNet``.
        depths: Number of blocks of each of the four stages.
        widths: Channels of each stage.
        group_width: Channels of a group of the 3x3 convolutions; narrow blocks have three quarters of it.

    Raises:
        ConfigurationError: An argument is out of its range, or widths do not split into groups.
    """

    conv_norm_pairs = (("conv1", "bn1"),)
    classifier_name = "fc"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        depths: Sequence[int] = (2, 6, 15, 2),
        widths: Sequence[int] = (96, 192, 432, 1008),
        group_width: int = 48,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        if len(depths) != 4 or len(widths) != 4 or min(*depths, *widths, group_width) < 1:
            raise ConfigurationError(
                f"GGhostRegNet: depths is {tuple(depths)}, widths is {tuple(widths)} and group_width is {group_width};"
                " wanted are four depths and four widths, and all numbers at least 1."
            )
        self.conv1 = nn.Conv2d(in_chans, STEM_CHANNELS, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)

        stages: list[nn.Module] = []
        levels: list[FeatureLevel] = []
        in_channels, resolution = STEM_CHANNELS, Dilation(output_stride)
        resolution.next(2)  # conv1
        drop_path_rates = (drop_path_rate * index / max(1, sum(depths) - 1) for index in range(sum(depths)))
        for depth, width in zip(depths, widths, strict=True):
            blocks = [
                {"drop_path_rate": next(drop_path_rates), **resolution.next(1 if index else 2)}
                for index in range(depth)
            ]
            if stages and depth >= LEAST_GHOST_DEPTH:
                stages.append(GGhostStage(in_channels, width, group_width=group_width, blocks=blocks))
            else:
                inputs = [in_channels, *[width] * (depth - 1)]
                stages.append(
                    nn.Sequential(
                        *[
                            RegNetBlock(channels, width, group_width=group_width, **block)
                            for channels, block in zip(inputs, blocks, strict=True)
                        ]
                    )
                )
            in_channels = width
            levels.append(FeatureLevel(width, resolution.stride, f"layer{len(stages)}"))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_levels = tuple(levels)
        self.path = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")

        self.num_features = in_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(drop_rate)
        self.head_features = self.num_features
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) -> the last map, (N, num_features, H / 32, W / 32) rounded up."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (N, num_classes), or (N, num_features) before the classifier where ``pre_logits``."""
        x = self.avgpool(x).flatten(1)
        return x if pre_logits else self.fc(self.dropout(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _arguments(depths: tuple[int, ...], widths: tuple[int, ...], group_width: int) -> dict[str, Any]:
    return {"depths": depths, "widths": widths, "group_width": group_width}


VARIANTS: dict[str, Variant] = {
    # of the official README: top-1, parameters and MACs; depths, widths, group width; params and MACs counted here
    "g_ghost_regnetx_002": Variant(_arguments((1, 1, 4, 7), (24, 56, 152, 368), 8), 1.8254, 130.92),
    "g_ghost_regnetx_004": Variant(_arguments((1, 2, 7, 12), (32, 64, 160, 384), 16), 2.8845, 221.25),
    "g_ghost_regnetx_006": Variant(_arguments((1, 3, 5, 7), (48, 96, 240, 528), 24), 4.0298, 389.79),
    "g_ghost_regnetx_008": Variant(_arguments((1, 3, 7, 5), (64, 128, 288, 672), 16), 5.2483, 528.57),
    "g_ghost_regnetx_016": Variant(_arguments((2, 4, 10, 2), (72, 168, 408, 912), 24), 7.1097, 1021.38),
    "g_ghost_regnetx_032": Variant(
        _arguments((2, 6, 15, 2), (96, 192, 432, 1008), 48), 10.5110, 1801.75, 77.8, 10.5, 1800.0
    ),
    "g_ghost_regnetx_040": Variant(
        _arguments((2, 5, 14, 2), (80, 240, 560, 1360), 40), 15.7263, 2228.37, 78.6, 15.7, 2200.0
    ),
    "g_ghost_regnetx_064": Variant(_arguments((2, 4, 10, 1), (168, 392, 784, 1624), 56), 17.9937, 4055.26),
    "g_ghost_regnetx_080": Variant(
        _arguments((2, 5, 15, 1), (80, 240, 720, 1920), 120), 24.5869, 4149.67, 79.0, 24.6, 4200.0
    ),
    "g_ghost_regnetx_120": Variant(_arguments((2, 5, 11, 1), (224, 448, 896, 2240), 112), 30.6272, 7377.52),
    "g_ghost_regnetx_160": Variant(
        _arguments((2, 6, 13, 1), (256, 512, 896, 2048), 128), 32.3817, 8997.38, 79.9, 32.4, 9000.0
    ),
    "g_ghost_regnetx_320": Variant(_arguments((2, 7, 13, 1), (336, 672, 1344, 2520), 168), 62.8154, 17157.78),
}
