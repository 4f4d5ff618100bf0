"""Anchor-free detector in the style of NanoDet-Plus: backbone, Ghost-PAN, and a separate head for each level.

The head predicts, for each pixel of each level, a score for each class and a discrete distribution of the distance to
each side of the box. Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388); Lyu, NanoDet-Plus
(https://github.com/RangiLyu/nanodet).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.models.detection.blocks import separable_conv
from ghostnets.models.detection.pan import GhostPAN

__all__ = ["DetectionHead", "Detector", "DetectorMaps"]

PRIOR_PROBABILITY = 0.01  # initial score of every class, as in Focal Loss (arXiv 1708.02002, section 3.3)


class DetectionHead(nn.Module):
    """Maps (N, C, H_i, W_i) of several levels -> predictions (N, P, num_classes + 4 * bins), P = sum of H_i * W_i.

    Args:
        channels: Number of channels C of every map.
        levels: Number of maps; the convolutions of each have their own weights.
        num_classes: Number of classes, at least 1.
        bins: Number of bins of each distance's distribution, for distances of 0 to ``bins - 1`` strides.
        kernel_size: Kernel size of the depthwise convolutions, odd.
        depth: Number of depthwise-separable convolutions before the final 1x1 convolution.
    """

    def __init__(
        self, channels: int, levels: int, *, num_classes: int, bins: int = 8, kernel_size: int = 5, depth: int = 2
    ) -> None:
        super().__init__()
        self.num_classes, self.bins = num_classes, bins
        self.convs = nn.ModuleList(
            nn.Sequential(*(separable_conv(channels, channels, kernel_size) for _ in range(depth)))
            for _ in range(levels)
        )
        self.predict = nn.ModuleList(nn.Conv2d(channels, num_classes + 4 * bins, 1) for _ in range(levels))
        for layer in self.predict:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
            nn.init.constant_(layer.bias[:num_classes], -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([x.flatten(2) for x in self.predict_maps(maps)], dim=2).transpose(1, 2)

    def predict_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the predictions of each level as a map, (N, num_classes + 4 * bins, H_i, W_i)."""
        levels = zip(self.convs, self.predict, maps, strict=True)
        return [predict(convs(x)) for convs, predict, x in levels]


class Detector(nn.Module):
    """Images (N, C, H, W), normalised -> predictions (N, P, num_classes + 4 * bins), float.

    The P points are the pixels of the levels at ``strides``, in this order, row by row (``grid_points``). A prediction
    consists of the class logits, then the logits of ``bins`` distances to the left, top, right and bottom side.
    ``decode_boxes`` turns predictions into boxes and scores, ``select_boxes`` these into detections.

    Args:
        backbone: Module that returns a list of maps, from high to low resolution.
        in_channels: Number of channels of each map of the backbone.
        strides: Stride of each map of the backbone; each is twice the previous one.
        num_classes: Number of classes, at least 1.
        channels: Number of channels of neck and head.
        bins: Number of bins of each distance's distribution, at least 2.
        kernel_size: Kernel size of the depthwise convolutions of neck and head, odd.

    Attributes:
        strides: Strides of the prediction levels: those of the backbone's maps, then twice the last one.

    Raises:
        ConfigurationError: An argument is out of range, or a stride is not twice the previous one.
    """

    def __init__(
        self,
        backbone: nn.Module,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        num_classes: int,
        channels: int,
        bins: int = 8,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        for name, value, minimum in [("num_classes", num_classes, 1), ("channels", channels, 1), ("bins", bins, 2)]:
            if not isinstance(value, int) or value < minimum:
                raise ConfigurationError(f"Detector: {name} is {value!r}; it must be an integer of at least {minimum}.")
        if any(after != 2 * before for before, after in pairwise(strides)):
            raise ConfigurationError(f"Detector: strides are {list(strides)}; each must be twice the previous one.")
        self.num_classes, self.bins = num_classes, bins
        self.strides = (*strides, 2 * strides[-1])
        self.backbone = backbone
        self.pan = GhostPAN(in_channels, channels, kernel_size=kernel_size)
        self.head = DetectionHead(
            channels, len(self.strides), num_classes=num_classes, bins=bins, kernel_size=kernel_size
        )

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers whose outputs are the predictions, one for each level."""
        return tuple(f"head.predict.{level}" for level in range(len(self.strides)))

    def forward(self, x: Tensor) -> Tensor:
        predictions: Tensor = self.head(self.pan(self.backbone(x)))
        return predictions


class DetectorMaps(nn.Module):
    """Detector that returns one map per level: images (N, C, H, W) -> list of (N, num_classes + 4 * bins, H_i, W_i).

    For runtimes that return maps, such as the engine. The values of a pixel are the prediction of ``Detector`` at its
    point.

    Args:
        detector: Detector whose modules are used (shared, not copied).
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.backbone, self.pan, self.head = detector.backbone, detector.pan, detector.head

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.head.predict_maps(self.pan(self.backbone(x)))
