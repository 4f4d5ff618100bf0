"""GhostNet 1.0x as d-li14 ported it to PyTorch (https://github.com/d-li14/ghostnet.pytorch), in two revisions.

The earlier revision differs from the canonical network (``models/ghostnet.py``) in module names and in three details,
none of which changes the family of functions:

- squeeze-and-excitation reduces to C // 4 channels (18, 30, 120, ...; the canonical network rounds to 20, 32, 120,
  ...), uses linear layers, and gates with clamp(0, 1) instead of relu6(x + 3) / 6;
- the head is Linear without bias, BatchNorm1d, ReLU instead of a 1x1 convolution with bias, ReLU;
- identity shortcuts and the depthwise convolution of a stride-1 bottleneck are empty Sequentials.

``checkpoints.sources.convert_d_li14`` converts its state dict to the canonical network, with equal outputs. The later
revision, whose weights are published, computes another function (``DLi14GhostNet``, ``revised``).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ghostnets.layers import GhostModule, drop_path, drop_path_rates
from ghostnets.models.features import FeatureLevel
from ghostnets.models.network import Dilation, Network, Variant
from ghostnets.models.recompute import is_scripting

__all__ = ["BLOCKS", "VARIANTS", "DLi14GhostNet"]


class DLi14BlockSpec(NamedTuple):
    """One bottleneck, ``features.N`` in the state dict."""

    kernel_size: int
    in_channels: int
    hidden_channels: int
    out_channels: int
    use_se: bool
    stride: int


BLOCKS: dict[int, DLi14BlockSpec] = {
    # N                k   in  hidden  out   SE     stride
    1: DLi14BlockSpec(3, 16, 16, 16, False, 1),
    2: DLi14BlockSpec(3, 16, 48, 24, False, 2),
    3: DLi14BlockSpec(3, 24, 72, 24, False, 1),
    4: DLi14BlockSpec(5, 24, 72, 40, True, 2),
    5: DLi14BlockSpec(5, 40, 120, 40, True, 1),
    6: DLi14BlockSpec(3, 40, 240, 80, False, 2),
    7: DLi14BlockSpec(3, 80, 200, 80, False, 1),
    8: DLi14BlockSpec(3, 80, 184, 80, False, 1),
    9: DLi14BlockSpec(3, 80, 184, 80, False, 1),
    10: DLi14BlockSpec(3, 80, 480, 112, True, 1),
    11: DLi14BlockSpec(3, 112, 672, 112, True, 1),
    12: DLi14BlockSpec(5, 112, 672, 160, True, 2),
    13: DLi14BlockSpec(5, 160, 960, 160, False, 1),
    14: DLi14BlockSpec(5, 160, 960, 160, True, 1),
    15: DLi14BlockSpec(5, 160, 960, 160, False, 1),
    16: DLi14BlockSpec(5, 160, 960, 160, True, 1),
}


class DLi14SqueezeExcite(nn.Module):
    """Squeeze-and-excitation gated by clamp(0, 1): (N, C, H, W) -> same shape; ``fc.0`` and ``fc.2`` are linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(inplace=True), nn.Linear(channels // 4, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3))).clamp(0, 1)
        return x * gate[:, :, None, None]


class DLi14Bottleneck(nn.Module):
    """Ghost bottleneck: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ``conv`` holds 0 the first Ghost module, 1 a depthwise convolution at stride 2, 2 squeeze-and-excitation, 3 the
    second Ghost module; a layer that the block lacks is empty. Arguments as in ``GhostBottleneck``, ``DLi14GhostNet``.
    """

    def __init__(
        self, spec: DLi14BlockSpec, *, revised: bool, stride: int, dilation: int, atrous: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        k, c_in, hidden, c_out, use_se, _ = spec
        real_stride, dilation_after = (1, stride * dilation) if atrous else (stride, dilation)
        self.conv = nn.Sequential(
            GhostModule(c_in, hidden, act=True, dilation=dilation),
            _depthwise_bn(hidden, k, real_stride, dilation) if stride == 2 else nn.Sequential(),
            DLi14SqueezeExcite(hidden) if use_se else nn.Sequential(),
            GhostModule(hidden, c_out, act=False, dilation=dilation_after),
        )
        self.drop_path = drop_path(drop_path_rate)
        self.shortcut = nn.Sequential()
        if stride == 2 or c_in != c_out:
            depthwise = _depthwise_bn(c_in, 3 if revised else k, real_stride, dilation)
            if revised:
                depthwise.append(nn.ReLU(inplace=True))
            self.shortcut = nn.Sequential(depthwise, nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv(x)) + self.shortcut(x)


class DLi14GhostNet(Network):
    """d-li14's GhostNet 1.0x: images (N, in_chans, H, W) -> logits (N, num_classes).

    Args:
        num_classes: Number of classes; 0 removes the classifier (the output is the 1280 features of the head).
        in_chans: Number of input channels.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last bottleneck, in [0, 1); the rate grows linearly from 0 at the
            first.
        output_stride: 32, 16 or 8, as in ``GhostNet``.
        revised: Build the later revision: the shortcut's depthwise convolution is 3x3 in every row and followed by
            ReLU. This is another function, which cannot be folded into the canonical network.
        blocks: Specifications of the bottlenecks; as lists of numbers, when read from JSON.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    classifier_name = "classifier.4"
    head_path = ("squeeze.3", "classifier")
    has_linear_head = True
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
        blocks: Sequence[DLi14BlockSpec] = tuple(BLOCKS.values()),
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
        ends = [FeatureLevel(16, resolution.stride, "features.0.0")]
        specs = [DLi14BlockSpec(*spec) for spec in blocks]
        rates = drop_path_rates(drop_path_rate, len(specs))
        for number, (spec, rate) in enumerate(zip(specs, rates, strict=True), start=1):
            if spec.stride > 1:
                levels.append(FeatureLevel(spec.in_channels, resolution.stride, f"features.{number - 1}"))
            self.features.append(
                DLi14Bottleneck(
                    spec,
                    revised=revised,
                    drop_path_rate=rate,
                    **resolution.next(spec.stride),
                )
            )
            if spec.stride > 1:  # a stage of its own in the table of the paper
                ends.append(FeatureLevel(spec.out_channels, resolution.stride, f"features.{number}"))
        levels.append(FeatureLevel(specs[-1].out_channels, resolution.stride, f"features.{len(specs)}"))
        levels.append(FeatureLevel(self.num_features, resolution.stride, "squeeze.2"))
        self.feature_levels, self.timm_levels = tuple(levels), tuple(ends)
        features = (f"features.{number}" for number in range(len(specs) + 1))
        self.path = (*features, "squeeze.0", "squeeze.1", "squeeze.2")
        self.squeeze = nn.Sequential(
            nn.Conv2d(specs[-1].out_channels, 960, 1, bias=False),
            nn.BatchNorm2d(960),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280, bias=False),
            nn.BatchNorm1d(1280),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(1280, num_classes) if num_classes else nn.Identity(),
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map: (N, in_chans, H, W) -> (N, 960, ceil(H / 32), ceil(W / 32))."""
        if self.grad_checkpointing and not is_scripting():
            return self.recompute_features(x)
        return self.squeeze[2](self.squeeze[1](self.squeeze[0](self.features(x))))  # TorchScript calls no slices

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (N, num_classes) from the last feature map; features (N, 1280) if ``pre_logits``."""
        x = self.squeeze[3](x).flatten(1)
        return self.classifier[2](self.classifier[1](self.classifier[0](x))) if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        head = (r"^squeeze|^classifier\.[01]", (99999,))
        return {"stem": r"^features\.0\.", "blocks": [(r"^features\.(\d+)", None), head]}


def _depthwise_bn(channels: int, kernel_size: int, stride: int, dilation: int) -> nn.Sequential:
    padding = kernel_size // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )


VARIANTS: dict[str, Variant] = {
    #                                                            params   MACs   top-1; published params, MACs
    "ghostnet_100_d_li14": Variant({"revised": False}, 5.1830, 141.15),
    "ghostnet_100_d_li14_revised": Variant({"revised": True}, 5.1808, 140.76, 73.636, 5.181, 140.77),
}
