"""The printed port of the project's founding document: GhostNet 1.0x, laid out row by row as printed.

A widely used PyTorch port of GhostNet prints this network tree. It differs from the canonical network
(``models/ghostnet.py``) in names and in three details, none of which changes what can be computed:

- squeeze-and-excitation has C // 4 channels inside (18, 30, 120, ...; the canonical rounds to 20, 32, 120, ...), is
  made of linear layers, and its gate is clamp(0, 1) instead of relu6(x + 3) / 6;
- the head is Linear without bias, BatchNorm1d, ReLU instead of a 1x1 convolution with bias, ReLU;
- identity shortcuts and the depthwise convolution of a stride-1 bottleneck appear as empty Sequentials.

``checkpoints.sources.fold_printed_port`` turns its state dict into one of the canonical network with equal outputs.
"""

from typing import NamedTuple

from torch import Tensor, nn

from ghostnets.layers import GhostModule

__all__ = ["ROWS", "PrintedGhostNet"]


class Row(NamedTuple):
    """One bottleneck of the printed tree, numbered as ``features.N``."""

    kernel_size: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    use_se: bool
    stride: int


ROWS: dict[int, Row] = {
    # N     k   in  hidden  out   SE     stride
    1: Row(3, 16, 16, 16, False, 1),
    2: Row(3, 16, 48, 24, False, 2),
    3: Row(3, 24, 72, 24, False, 1),
    4: Row(5, 24, 72, 40, True, 2),
    5: Row(5, 40, 120, 40, True, 1),
    6: Row(3, 40, 240, 80, False, 2),
    7: Row(3, 80, 200, 80, False, 1),
    8: Row(3, 80, 184, 80, False, 1),
    9: Row(3, 80, 184, 80, False, 1),
    10: Row(3, 80, 480, 112, True, 1),
    11: Row(3, 112, 672, 112, True, 1),
    12: Row(5, 112, 672, 160, True, 2),
    13: Row(5, 160, 960, 160, False, 1),
    14: Row(5, 160, 960, 160, True, 1),
    15: Row(5, 160, 960, 160, False, 1),
    16: Row(5, 160, 960, 160, True, 1),
}


class PrintedSqueezeExcite(nn.Module):
    """Squeeze-and-excitation with a clamp gate: (N, C, H, W) -> same shape. ``fc.{0,2}`` are linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(inplace=True), nn.Linear(channels // 4, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3))).clamp(0, 1)
        return x * gate[:, :, None, None]


class PrintedBottleneck(nn.Module):
    """``conv``: 0 Ghost module, 1 depthwise at stride 2, 2 squeeze-and-excitation, 3 Ghost module; ``shortcut``."""

    def __init__(self, row: Row, *, revised: bool) -> None:
        super().__init__()
        k, c_in, hidden, c_out, use_se, stride = row
        self.conv = nn.Sequential(
            GhostModule(c_in, hidden, act=True),
            depthwise_bn(hidden, k, stride) if stride == 2 else nn.Sequential(),
            PrintedSqueezeExcite(hidden) if use_se else nn.Sequential(),
            GhostModule(hidden, c_out, act=False),
        )
        self.shortcut = nn.Sequential()
        if stride == 2 or c_in != c_out:
            depthwise = depthwise_bn(c_in, 3 if revised else k, stride)
            if revised:
                depthwise.append(nn.ReLU(inplace=True))
            self.shortcut = nn.Sequential(depthwise, nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class PrintedGhostNet(nn.Module):
    """The printed tree: images (N, in_chans, H, W) -> logits (N, num_classes).

    Args:
        num_classes: Size of the last linear layer.
        in_chans: Channels of the input.
        drop_rate: Dropout before the last linear layer.
        revised: The port's later revision: the shortcut's depthwise convolution is 3x3 in every row, with a ReLU. That
            is another function, which does not fold into the canonical network.
    """

    def __init__(
        self, *, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.2, revised: bool = False
    ) -> None:
        super().__init__()
        self.num_classes, self.revised = num_classes, revised
        stem = nn.Sequential(nn.Conv2d(in_chans, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.features = nn.Sequential(stem, *[PrintedBottleneck(row, revised=revised) for row in ROWS.values()])
        self.squeeze = nn.Sequential(
            nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280, bias=False),
            nn.BatchNorm1d(1280),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(1280, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.squeeze(self.features(x)).flatten(1))


def depthwise_bn(channels: int, kernel_size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )
