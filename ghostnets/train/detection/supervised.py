"""A detector with the layers of training: an auxiliary neck and head, by which points are assigned to objects."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghostnets.models.detection import Detector, decode_boxes, grid_points
from ghostnets.models.detection.detector import DetectionHead
from ghostnets.train.detection.assign import assign_points
from ghostnets.train.detection.losses import DetectionLosses, detection_losses

__all__ = ["BoxTargets", "SupervisedDetector"]


class BoxTargets(NamedTuple):
    """Labelled objects of one image."""

    boxes: Tensor  # (G, 4), x_min, y_min, x_max, y_max in pixels, float32
    labels: Tensor  # (G,), int64
    is_crowd: Tensor | None = None  # (G,), bool: regions in which nothing is learned

    def without_crowds(self) -> tuple[Tensor, Tensor]:
        """Return the boxes, (G', 4), and labels, (G',), of all objects that are not crowds."""
        if self.is_crowd is None:
            return self.boxes, self.labels
        return self.boxes[~self.is_crowd], self.labels[~self.is_crowd]

    def in_crowds(self, points: Tensor) -> Tensor:
        """Return whether each of the points, (P, 2), lies within a crowd, bool (P,)."""
        if self.is_crowd is None or not self.is_crowd.any():
            return torch.zeros(len(points), dtype=torch.bool, device=points.device)
        crowds = self.boxes[self.is_crowd]
        return ((points[:, None] >= crowds[:, :2]) & (points[:, None] < crowds[:, 2:])).all(dim=-1).any(dim=1)


class SupervisedDetector(nn.Module):
    """Images (N, C, H, W) and their objects -> losses of the detector and of an auxiliary head.

    ::

        backbone ─┬─> PAN ───────┬──> head ─────────────────────────> losses
                  └─> aux PAN ───┴──> (concatenated) ──> aux head ──> losses
                                                            └──> assignment of points, for both

    The auxiliary head has twice the channels and learns faster, so points are assigned by its predictions (assign
    guidance module of NanoDet-Plus). It is discarded after training: only the weights of ``detector`` are kept. Like
    the detector's head, it consists of depthwise-separable convolutions; in NanoDet-Plus it has four 3x3 convolutions
    of 192 channels, which cost more than ten times the network.

    Args:
        detector: The detector, whose weights are trained in place.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.auxiliary_pan = copy.deepcopy(detector.pan)
        self.auxiliary_head = DetectionHead(
            2 * detector.pan.channels, len(detector.strides), num_classes=detector.num_classes, bins=detector.bins
        )

    def forward(self, images: Tensor, targets: Sequence[BoxTargets], *, detach: bool = False) -> DetectionLosses:
        """Compute the losses of a batch, summed over both heads.

        Args:
            images: Normalised images, (N, C, H, W).
            targets: Labelled objects of each image.
            detach: Stop the gradient of the auxiliary head at the detector, as NanoDet-Plus does after ten epochs.
        """
        detector = self.detector
        features = detector.backbone(images)
        maps = detector.pan(features)
        predictions = detector.head(maps)
        if detach:
            features, maps = ([level.detach() for level in levels] for levels in (features, maps))
        pairs = zip(maps, self.auxiliary_pan(features), strict=True)
        auxiliary = self.auxiliary_head([torch.cat(pair, dim=1) for pair in pairs])
        size = (images.shape[2], images.shape[3])
        with torch.autocast(images.device.type, enabled=False):
            return self._compute_losses(predictions.float(), auxiliary.float(), targets, size)

    def _compute_losses(
        self, predictions: Tensor, auxiliary: Tensor, targets: Sequence[BoxTargets], size: tuple[int, int]
    ) -> DetectionLosses:
        detector, bins = self.detector, self.detector.bins
        points, strides = grid_points(*size, detector.strides, device=predictions.device)
        boxes, _ = decode_boxes(predictions, size, detector.strides, bins=bins, clip=False)
        auxiliary_boxes, scores = decode_boxes(auxiliary, size, detector.strides, bins=bins, clip=False)
        objects, labels = zip(*(target.without_crowds() for target in targets), strict=True)
        assignments = [
            assign_points(points, *image) for image in zip(auxiliary_boxes, scores, objects, labels, strict=True)
        ]
        ignored = torch.stack([target.in_crowds(points) for target in targets])
        common = (points, strides, assignments, objects, labels, ignored)
        main = detection_losses(predictions, boxes, *common, bins=bins)
        extra = detection_losses(auxiliary, auxiliary_boxes, *common, bins=bins)
        return DetectionLosses(*(first + second for first, second in zip(main, extra, strict=True)))

    @property
    def auxiliary(self) -> nn.ModuleDict:
        """Auxiliary neck and head, which exist in training only."""
        return nn.ModuleDict({"pan": self.auxiliary_pan, "head": self.auxiliary_head})
