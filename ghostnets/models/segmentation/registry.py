"""The segmentation networks by name."""

from typing import NamedTuple

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models.backbone import Backbone
from ghostnets.models.registry import create_model
from ghostnets.models.segmentation.segmenter import HEADS, SegmentationNetwork

__all__ = ["SEGMENTERS", "SegmenterVariant", "create_segmenter", "list_segmenters"]


class SegmenterVariant(NamedTuple):
    """Composition and cost of a named segmentation network."""

    backbone: str
    head: str  # one of ``HEADS``
    channels: int  # of LR-ASPP
    output_stride: int
    params: float  # millions with 21 classes, computed
    macs: float  # millions of multiply-adds for one image of 512 x 512 with 21 classes, computed


SEGMENTERS: dict[str, SegmenterVariant] = {
    # name                            backbone       head  channels stride params MACs
    "ghostseg_050": SegmenterVariant("ghostnet_050", "lraspp", 128, 16, 0.68, 370.3),
    "ghostseg_100": SegmenterVariant("ghostnet_100", "lraspp", 128, 16, 2.56, 1272.1),
    "ghostseg_130": SegmenterVariant("ghostnet_130", "lraspp", 128, 16, 4.27, 2067.0),
    "ghostseg_100_os8": SegmenterVariant("ghostnet_100", "lraspp", 128, 8, 2.56, 4350.2),
    "ghostseg_100_aspp": SegmenterVariant("ghostnet_100", "aspp", 256, 16, 4.63, 3356.2),
}
"""Segmentation networks by name, with their backbones, heads and costs."""


def list_segmenters() -> list[str]:
    """Return the names of all segmentation networks, sorted."""
    return sorted(SEGMENTERS)


def create_segmenter(
    name: str,
    *,
    num_classes: int = 21,
    backbone: str | None = None,
    head: str | None = None,
    output_stride: int | None = None,
    channels: int | None = None,
) -> SegmentationNetwork:
    """Build a segmentation network with random weights.

    >>> segmenter = create_segmenter("ghostseg_100", num_classes=5)
    >>> segmenter = create_segmenter("ghostseg_100", backbone="ghostnetv2_100", head="aspp", output_stride=8)

    Args:
        name: A name of ``list_segmenters()``.
        num_classes: Number of classes, at least 1.
        backbone: Another network of the registry.
        head: ``"lraspp"`` (LR-ASPP, as of MobileNetV3) or ``"aspp"`` (as of DeepLabV3); by default that of the named
            network.
        output_stride: Ratio of the input size to the size of the backbone's last map: 16, 8 or 32; by default that of
            the named network. Strides beyond it are replaced by dilation, so the weights of the backbone fit for each.
        channels: Channels of the 1x1 convolution of LR-ASPP; by default those of the named network.

    Returns:
        The network, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: There is no such segmentation network or backbone.
        ConfigurationError: The backbone lacks one of the maps, or an argument is out of range.
    """
    if name not in SEGMENTERS:
        raise UnknownNameError("segmentation network", name, SEGMENTERS)
    variant = SEGMENTERS[name]
    head = head or variant.head
    if head not in HEADS:
        raise ConfigurationError(f"head is {head!r}; it must be {' or '.join(HEADS)}.")
    channels = variant.channels if channels is None else channels
    for argument, value in [("num_classes", num_classes), ("channels", channels)]:
        if not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"create_segmenter: {argument} is {value!r}; it must be an integer of at least 1.")
    backbone = variant.backbone if backbone is None else backbone
    output_stride = variant.output_stride if output_stride is None else output_stride
    maps = _create_backbone(backbone, output_stride, needs_low_map=head == "lraspp")
    return SegmentationNetwork(
        maps,
        [level.channels for level in maps.feature_levels],
        num_classes=num_classes,
        head=head,
        channels=channels,
        output_stride=output_stride,
    )


def _create_backbone(name: str, output_stride: int, *, needs_low_map: bool) -> Backbone:
    """Backbone that returns its last map, without a wide last one, and before it, if needed, one at half its stride."""
    levels = create_model(name, features_only=True, output_stride=output_stride)
    assert isinstance(levels, Backbone)
    strides = [level.stride for level in levels.feature_levels]
    if strides[-1] != output_stride:
        raise ConfigurationError(
            f"{name} has a last map at stride {strides[-1]}, not {output_stride}; choose another backbone, such as"
            " ghostnet_100, or output_stride 8 or 16."
        )
    indices = [len(strides) - 1]
    if needs_low_map:
        below = [index for index, stride in enumerate(strides) if 2 * stride == output_stride]
        if not below:
            raise ConfigurationError(
                f"{name} has no map at stride {output_stride // 2}, but at {', '.join(map(str, strides))}; choose"
                " another backbone, such as ghostnet_100, or the head aspp."
            )
        indices.insert(0, below[-1])
    backbone = create_model(name, features_only=True, output_stride=output_stride, out_indices=indices)
    assert isinstance(backbone, Backbone)
    return backbone
