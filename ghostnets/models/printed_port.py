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
from torchvision.ops import StochasticDepth

from ghostnets.layers import GhostModule
from ghostnets.models.network import Dilation, FeatureLevel, Network, Variant

__all__ = ["ROWS", "VARIANTS", "PrintedGhostNet"]


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

    def __init__(
        self, row: Row, *, revised: bool, stride: int, dilation: int, atrous: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        k, c_in, hidden, c_out, use_se, _ = row
        real_stride, dilation_after = (1, stride * dilation) if atrous else (stride, dilation)
        self.conv = nn.Sequential(
            GhostModule(c_in, hidden, act=True, dilation=dilation),
            depthwise_bn(hidden, k, real_stride, dilation) if stride == 2 else nn.Sequential(),
            PrintedSqueezeExcite(hidden) if use_se else nn.Sequential(),
            GhostModule(hidden, c_out, act=False, dilation=dilation_after),
        )
        self.drop_path = StochasticDepth(drop_path_rate, "row") if drop_path_rate else nn.Identity()
        self.shortcut = nn.Sequential()
        if stride == 2 or c_in != c_out:
            depthwise = depthwise_bn(c_in, 3 if revised else k, real_stride, dilation)
            if revised:
                depthwise.append(nn.ReLU(inplace=True))
            self.shortcut = nn.Sequential(depthwise, nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv(x)) + self.shortcut(x)


class PrintedGhostNet(Network):
    """The printed tree: images (N, in_chans, H, W) -> logits (N, num_classes).

    Args:
        num_classes: Size of the last linear layer; 0 for none (features of the head come out).
        in_chans: Channels of the input.
        drop_rate: Dropout before the last linear layer.
        drop_path_rate: Stochastic depth of the last bottleneck; it grows along a line from 0 at the first.
        output_stride: 32, or 16 or 8: see ``GhostNet``.
        revised: The port's later revision: the shortcut's depthwise convolution is 3x3 in every row, with a ReLU. That
            is another function, which does not fold into the canonical network.
    """

    classifier_name = "classifier.4"
    has_wide_map = True

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        revised: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        self.revised, self.num_features, self.head_features = revised, 960, 1280
        resolution = Dilation(output_stride)
        resolution.next(2)
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(in_chans, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        )
        levels: list[FeatureLevel] = []
        for number, row in ROWS.items():
            if row.stride > 1:
                levels.append(FeatureLevel(row.in_channels, resolution.stride, f"features.{number - 1}"))
            self.features.append(
                PrintedBottleneck(
                    row,
                    revised=revised,
                    drop_path_rate=drop_path_rate * (number - 1) / (len(ROWS) - 1),
                    **resolution.next(row.stride),
                )
            )
        levels.append(FeatureLevel(160, resolution.stride, f"features.{len(ROWS)}"))
        levels.append(FeatureLevel(self.num_features, resolution.stride, "squeeze.2"))
        self.feature_levels = tuple(levels)
        rows = (f"features.{number}" for number in range(len(ROWS) + 1))
        self.path = (*rows, "squeeze.0", "squeeze.1", "squeeze.2")
        self.squeeze = nn.Sequential(
            nn.Conv2d(160, 960, 1, bias=False), nn.BatchNorm2d(960), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280, bias=False),
            nn.BatchNorm1d(1280),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(1280, num_classes) if num_classes else nn.Identity(),
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) -> the last map, (N, 960, H / 32, W / 32) rounded up."""
        return self.squeeze[:3](self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.squeeze(self.features(x)).flatten(1))


def depthwise_bn(channels: int, kernel_size: int, stride: int, dilation: int) -> nn.Sequential:
    padding = kernel_size // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )


VARIANTS: dict[str, Variant] = {
    #                                                            params   MACs   top-1; published params, MACs
    "ghostnet_100_printed": Variant({"revised": False}, 5.1830, 141.15),
    "ghostnet_100_printed_revised": Variant({"revised": True}, 5.1808, 140.76, 73.636, 5.181, 140.77),
}
