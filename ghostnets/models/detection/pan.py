"""Ghost-PAN: a path aggregation network whose fusions are Ghost bottlenecks.

The neck of NanoDet-Plus (https://github.com/RangiLyu/nanodet), after Liu et al., "Path Aggregation Network for Instance
Segmentation", CVPR 2018 (arXiv 1803.01534): a top-down path, then a bottom-up path.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostBottleneck
from ghostnets.models.detection.blocks import conv_act, separable_conv

__all__ = ["GhostPAN"]


class GhostPAN(nn.Module):
    """Feature pyramid: maps at strides s, 2s, 4s, ... -> maps of C channels at these strides and at twice the last.

    ::

        low  ──reduce──┬────────> fuse ──────────────┬─────────> level 0
                       │           ^ upsample         └ downsample
        mid  ──reduce──┼──> fuse ──┴────────────────────> fuse ─> level 1
                       │     ^ upsample                    └ downsample
        high ──reduce──┴─────┴──────────────────────────────> fuse ─> level 2 ──> downsample ──┐
                       └──────────────────────────> downsample ────────────────────────── + ──> level 3

    Args:
        in_channels: Number of channels of each input map, from high to low resolution; each map has half the height
            and width of the previous one, rounded up.
        channels: Number of channels C of every output map.
        kernel_size: Kernel size of the depthwise convolutions between levels and in the bottlenecks' shortcuts, odd.

    Raises:
        ConfigurationError: ``in_channels`` has fewer than two entries.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, kernel_size: int = 5) -> None:
        super().__init__()
        if len(in_channels) < 2:
            raise ConfigurationError(
                f"GhostPAN: in_channels is {list(in_channels)}; pass the channels of at least two maps."
            )
        steps = len(in_channels) - 1
        self.channels = channels
        self.reduce = nn.ModuleList(conv_act(count, channels) for count in in_channels)
        self.top_down = nn.ModuleList(_make_fusion(channels, kernel_size) for _ in range(steps))
        self.downsample = nn.ModuleList(separable_conv(channels, channels, kernel_size, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(_make_fusion(channels, kernel_size) for _ in range(steps))
        self.extra_in = separable_conv(channels, channels, kernel_size, stride=2)
        self.extra_out = separable_conv(channels, channels, kernel_size, stride=2)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        inputs = [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]  # (N, C, H / s, W / s) each
        down = inputs[-1:]  # from low to high resolution
        for fuse, low in zip(self.top_down, reversed(inputs[:-1]), strict=True):
            high = F.interpolate(down[-1], size=low.shape[2:], mode="bilinear")
            down.append(fuse(torch.cat([high, low], dim=1)))
        outputs = down[-1:]  # from high to low resolution
        for downsample, fuse, high in zip(self.downsample, self.bottom_up, reversed(down[:-1]), strict=True):
            outputs.append(fuse(torch.cat([downsample(outputs[-1]), high], dim=1)))
        return [*outputs, self.extra_in(inputs[-1]) + self.extra_out(outputs[-1])]


def _make_fusion(channels: int, kernel_size: int) -> GhostBottleneck:
    """Return a Ghost bottleneck that fuses two concatenated maps: (N, 2C, H, W) -> (N, C, H, W)."""
    return GhostBottleneck(2 * channels, channels, channels, kernel_size=kernel_size)
