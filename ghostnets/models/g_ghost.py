"""G-Ghost RegNet: each stage computes some channels block by block and the others from the output of its first block.

Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022 (arXiv 2201.03297), on the RegNetX of
Radosavovic et al., "Designing Network Design Spaces" (arXiv 2003.13678). GhostNet derives cheap maps within one
layer, G-Ghost across the layers of a stage: part of the input of the last block is a 1x1 convolution of the first
block's output, plus a mix of the pooled outputs of all blocks before the last.

Module names, and so the keys of a state dict, are those of the official PyTorch implementation. Its files named 3.2g to
16.0g contain networks of 1.8 to 9.0 GMACs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.layers import drop_path, drop_path_rates
from ghostnets.models.features import FeatureLevel
from ghostnets.models.network import Dilation, Network, Variant
from ghostnets.models.recompute import is_scripting

__all__ = ["VARIANTS", "GGhostRegNet", "GGhostStage", "MixBatchNorm", "RegNetBlock"]

STEM_CHANNELS = 32
MIN_GHOST_DEPTH = 3  # a first block, a last block, and at least one narrow block between them


class MixBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of pooled maps, (N, C, 1, 1), that supports training with N = 1.

    A batch of one has one value per channel and hence no variance: it is normalised by the running statistics, which
    are not updated. Other batches are normalised as by ``nn.BatchNorm2d``; TorchScript does not support ``super()``.
    """

    def forward(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None  # track_running_stats is always on
        return normalize_batch(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.num_batches_tracked,
            self.training,
            self.momentum,
            self.eps,
        )


@torch.fx.wrap  # a symbolic batch size cannot be compared, so this is one node of a traced graph
def normalize_batch(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    num_batches_tracked: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Batch normalisation that uses the running statistics in evaluation mode and for a batch of one."""
    if not training or x.shape[0] == 1:
        return F.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    num_batches_tracked.add_(1)
    if momentum is None:  # cumulative average over batches
        momentum = 1 / max(1, int(num_batches_tracked))
    return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)


class RegNetBlock(nn.Module):
    """The X block of RegNet: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    Three convolutions to C_out channels (1x1, grouped 3x3 with the stride, 1x1) plus a shortcut, followed by ReLU. The
    shortcut is a 1x1 convolution if the shapes differ. The number of groups is C_out // group_width.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        group_width: Approximate number of channels per group.
        stride: Stride of the 3x3 convolution and the shortcut.
        dilation: Dilation of the 3x3 convolution.
        atrous: Keep the resolution although the stride is 2; the caller doubles the dilation of the blocks after it.
        drop_path_rate: Stochastic depth: probability, per image and in training only, of dropping the residual branch.

    Raises:
        ConfigurationError: C_out is not divisible by the number of groups.
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
                f"RegNetBlock: {out_channels} channels are not divisible into groups of {group_width};"
                " choose widths that are multiples of the group width, in a G-Ghost stage at least 1.5 times as large."
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
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.drop_path(self.bn3(self.conv3(out))) + self.downsample(x))


class GGhostStage(nn.Module):
    """Stage of ``depth`` blocks with narrow blocks between the first and the last: (N, C_in, H, W) -> (N, C, H', W').

    H' = ceil(H / 2). R channels, half of C or slightly less, are computed block by block ("raw"), the others are cheap;
    ``layers`` are the depth - 2 narrow blocks, with three quarters of the group width::

        x ─> base /2 ─┬─ first R ───> layers.0 ─> layers.1 ─> ... ─────────┬─ concatenation ─> end
                      ├─ the others ─> cheap: 1x1, BN ── + ── ReLU ────────┘
                      │                                  │
                      └─ all C, and R of each layer ─> merge: global average pool, 1x1, BN, ReLU, 1x1, BN

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C.
        group_width: Channels per group in the blocks ``base`` and ``end``.
        blocks: Stride, dilation and stochastic-depth arguments of each block, for at least three blocks.

    Raises:
        ConfigurationError: Channels are not divisible into groups, or too few for any raw channel.
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

    The first stage is plain; later stages are G-Ghost stages if they have at least three blocks, otherwise plain.
    ``feature_levels`` are the outputs of the four stages.

    Training with a batch of 1 works for images larger than 32 pixels in either direction, with the merge layers
    normalised by their running statistics (the official implementation fails). Up to 32 x 32 the last map is one pixel,
    for which PyTorch's batch normalisation raises ValueError, "Expected more than 1 value per channel when training".

    Args:
        num_classes: Number of classes; 0 removes the classifier (the output is the pooled features).
        in_chans: Number of input channels.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last block, in [0, 1); the rate grows linearly from 0 at the first.
        output_stride: 32, 16 or 8, as in ``GhostNet``.
        depths: Number of blocks of each of the four stages.
        widths: Channels of each stage.
        group_width: Channels per group of the 3x3 convolutions; narrow blocks have three quarters of it.

    Raises:
        ConfigurationError: An argument is out of range, or widths are not divisible into groups.
    """

    conv_norm_pairs = (("conv1", "bn1"),)
    classifier_name = "fc"
    head_path = ("avgpool", "dropout", "fc")

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
                " give four depths and four widths, with all numbers at least 1."
            )
        self.conv1 = nn.Conv2d(in_chans, STEM_CHANNELS, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)

        stages, self.feature_levels = _make_stages(
            depths, widths, group_width=group_width, drop_path_rate=drop_path_rate, output_stride=output_stride
        )
        self.timm_levels = (FeatureLevel(STEM_CHANNELS, 2, "relu"), *self.feature_levels)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.path = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")

        self.num_features = widths[-1]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(drop_rate)
        self.head_features = self.num_features
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map: (N, in_chans, H, W) -> (N, num_features, ceil(H / 32), ceil(W / 32))."""
        if self.grad_checkpointing and not is_scripting():
            return self.recompute_features(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (N, num_classes) from the last feature map; features (N, num_features) if ``pre_logits``."""
        x = self.avgpool(x)
        if self.is_pooled:
            x = x.flatten(1)
        return x if pre_logits else self.fc(self.dropout(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        numbered = r"^layer(\d+)\.(?:layers\.)?(\d+)"  # run between base and cheap, merge, end
        blocks = [(numbered, None), (r"^layer(\d+)\.base", (-1,)), (r"^layer(\d+)", (9999,))]
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else blocks}


def _make_stages(
    depths: Sequence[int], widths: Sequence[int], *, group_width: int, drop_path_rate: float, output_stride: int
) -> tuple[list[nn.Module], tuple[FeatureLevel, ...]]:
    """Build the four stages; return them, and the output of each as a feature level."""
    stages: list[nn.Module] = []
    levels: list[FeatureLevel] = []
    in_channels, resolution = STEM_CHANNELS, Dilation(output_stride)
    resolution.next(2)  # conv1
    rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
    for depth, width in zip(depths, widths, strict=True):
        blocks = [{"drop_path_rate": next(rates), **resolution.next(1 if index else 2)} for index in range(depth)]
        if stages and depth >= MIN_GHOST_DEPTH:
            stages.append(GGhostStage(in_channels, width, group_width=group_width, blocks=blocks))
        else:
            inputs = [in_channels, *[width] * (depth - 1)]
            layers = [
                RegNetBlock(channels, width, group_width=group_width, **block)
                for channels, block in zip(inputs, blocks, strict=True)
            ]
            stages.append(nn.Sequential(*layers))
        in_channels = width
        levels.append(FeatureLevel(width, resolution.stride, f"layer{len(stages)}"))
    return stages, tuple(levels)


def _arguments(depths: tuple[int, ...], widths: tuple[int, ...], group_width: int) -> dict[str, Any]:
    return {"depths": depths, "widths": widths, "group_width": group_width}


VARIANTS: dict[str, Variant] = {
    # depths, widths, group width; computed params, MACs; top-1 and published params, MACs of the official README
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
