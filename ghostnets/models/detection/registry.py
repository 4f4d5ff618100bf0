"""Registry of the detectors: table of variants, and ``create_detector``."""

from typing import NamedTuple

from torch import Tensor, nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models.backbone import Backbone
from ghostnets.models.detection.blocks import use_leaky_relu
from ghostnets.models.detection.detector import Detector
from ghostnets.models.registry import create_model

__all__ = ["DETECTORS", "DetectorVariant", "create_detector", "list_detectors"]

STRIDES = (8, 16, 32)
SHUFFLENET = "shufflenet_v2_x1_0"  # name in torchvision


class DetectorVariant(NamedTuple):
    """Composition and cost of a named detector."""

    backbone: str
    channels: int  # channels of neck and head
    negative_slope: float  # slope of leaky ReLUs in neck, head and ShuffleNet; 0 for ReLU
    params: float  # millions with 80 classes, computed
    macs: float  # millions of multiply-adds for one image of 416 x 416 with 80 classes, computed


DETECTORS: dict[str, DetectorVariant] = {
    # name                            backbone        channels slope params    MACs
    "ghostdet_050": DetectorVariant("ghostnet_050", 48, 0.0, 0.77, 231.0),
    "ghostdet_100": DetectorVariant("ghostnet_100", 96, 0.0, 2.89, 762.2),
    "ghostdet_130": DetectorVariant("ghostnet_130", 128, 0.0, 4.83, 1243.0),
    "nanodet_plus_m": DetectorVariant(SHUFFLENET, 96, 0.1, 1.20, 762.1),
}
"""Detectors by name, with their backbones and costs."""


def list_detectors() -> list[str]:
    """Return the names of all detectors, sorted."""
    return sorted(DETECTORS)


def create_detector(
    name: str, *, num_classes: int = 80, backbone: str | None = None, channels: int | None = None
) -> Detector:
    """Build a detector with random weights.

    >>> detector = create_detector("ghostdet_100", num_classes=3)
    >>> detector = create_detector("ghostdet_100", backbone="ghostnetv2_130", num_classes=3)

    Args:
        name: One of ``list_detectors()``.
        num_classes: Number of classes, at least 1.
        backbone: Name of a network of ``list_models()`` with maps at strides 8, 16 and 32, or
            ``"shufflenet_v2_x1_0"``, the backbone of NanoDet-Plus-m; by default that of the named detector.
        channels: Number of channels of neck and head; by default that of the named detector.

    Returns:
        The detector, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: There is no such detector or backbone.
        ConfigurationError: The backbone lacks one of the maps, or a number is out of range.
    """
    if name not in DETECTORS:
        raise UnknownNameError("detector", name, DETECTORS)
    variant = DETECTORS[name]
    channels = variant.channels if channels is None else channels
    backbone = variant.backbone if backbone is None else backbone
    maps, in_channels = _create_shufflenet() if backbone == SHUFFLENET else _create_backbone(backbone)
    detector = Detector(maps, in_channels, STRIDES, num_classes=num_classes, channels=channels)
    if variant.negative_slope:
        for module in [detector.pan, detector.head, *([maps] if backbone == SHUFFLENET else [])]:
            use_leaky_relu(module, variant.negative_slope)
    return detector


def _create_backbone(name: str) -> tuple[nn.Module, list[int]]:
    """Create a backbone that returns the last map of each of ``STRIDES``; return it and the channels of these maps.

    The wide map before the classifier, where a network has one, is not among them.
    """
    levels = create_model(name, features_only=True)
    assert isinstance(levels, Backbone)
    indices = {level.stride: index for index, level in enumerate(levels.feature_levels)}
    if missing := [stride for stride in STRIDES if stride not in indices]:
        raise ConfigurationError(
            f"{name} has no map at stride {', '.join(map(str, missing))}, only at {', '.join(map(str, indices))};"
            " choose a backbone with maps at strides 8, 16 and 32, such as ghostnet_100."
        )
    backbone = create_model(name, features_only=True, out_indices=[indices[stride] for stride in STRIDES])
    assert isinstance(backbone, Backbone)
    return backbone, [level.channels for level in backbone.feature_levels]


class ShuffleNetMaps(nn.Module):
    """Maps of torchvision's ShuffleNetV2 1.0x at strides 8, 16 and 32: images (N, 3, H, W) -> list of three maps."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import shufflenet_v2_x1_0

        network = shufflenet_v2_x1_0(weights=None)
        self.conv1, self.maxpool = network.conv1, network.maxpool
        self.stage2, self.stage3, self.stage4 = network.stage2, network.stage3, network.stage4

    def forward(self, x: Tensor) -> list[Tensor]:
        low = self.stage2(self.maxpool(self.conv1(x)))
        middle = self.stage3(low)
        return [low, middle, self.stage4(middle)]


def _create_shufflenet() -> tuple[nn.Module, list[int]]:
    return ShuffleNetMaps(), [116, 232, 464]
