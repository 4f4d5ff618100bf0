"""Losses of a detector for images and their objects."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.models.detection import Detector, decode_boxes, grid_points
from ghostnets.train.detection.assign import assign_points
from ghostnets.train.detection.losses import DetectionLosses, detection_losses

__all__ = ["BoxTargets", "SupervisedDetector", "compute_losses"]


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
    """Images (N, C, H, W) and their objects -> losses of a batch.

    Args:
        detector: The detector, whose weights are trained in place.
        sum_over_processes: As in ``detection_losses``.
    """

    def __init__(self, detector: Detector, sum_over_processes: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.detector, self.sum_over_processes = detector, sum_over_processes

    def forward(self, images: Tensor, targets: Sequence[BoxTargets]) -> DetectionLosses:
        """Compute the losses of a batch.

        Args:
            images: Normalised images, (N, C, H, W).
            targets: Labelled objects of each image.

        Raises:
            ConfigurationError: As ``compute_losses``.
        """
        predictions = self.detector(images)
        with torch.autocast(images.device.type, enabled=False):
            size = (images.shape[2], images.shape[3])
            return compute_losses(
                self.detector, predictions.float(), targets, size, sum_over_processes=self.sum_over_processes
            )


def compute_losses(
    detector: Detector,
    predictions: Tensor,
    targets: Sequence[BoxTargets],
    size: tuple[int, int],
    *,
    sum_over_processes: Callable[[Tensor], Tensor] | None = None,
) -> DetectionLosses:
    """Assign the points of each image to its objects by the predictions, and compute the losses of a batch.

    The predictions are the detector's own, as in YOLOX (Ge et al., arXiv 2107.08430); NanoDet-Plus uses those of an
    auxiliary head. With one, a step took 1.7 times as long, and the detector did not learn more per epoch
    (docs/log.md).

    Args:
        detector: Detector that made the predictions.
        predictions: Output of the detector, (N, P, C + 4 * bins), float32.
        targets: Labelled objects of each image.
        size: Height and width of the images in pixels.
        sum_over_processes: As in ``detection_losses``.

    Raises:
        ConfigurationError: There is not one target for each image, or a box or label cannot be used.
    """
    _check_targets(targets, len(predictions), detector.num_classes)
    points, strides = grid_points(*size, detector.strides, device=predictions.device)
    boxes, scores = decode_boxes(predictions, size, detector.strides, bins=detector.bins, clip=False)
    objects, labels = zip(*(target.without_crowds() for target in targets), strict=True)
    assignments = [
        assign_points(points, *image) for image in zip(boxes.detach(), scores.detach(), objects, labels, strict=True)
    ]
    ignored = torch.stack([target.in_crowds(points) for target in targets])
    return detection_losses(
        predictions,
        boxes,
        points,
        strides,
        assignments,
        objects,
        labels,
        ignored,
        bins=detector.bins,
        sum_over_processes=sum_over_processes,
    )


def _check_targets(targets: Sequence[BoxTargets], images: int, num_classes: int) -> None:
    if len(targets) != images:
        raise ConfigurationError(f"there are {len(targets)} targets for {images} images; pass one for each.")
    for index, (boxes, labels, _) in enumerate(targets):
        if boxes.shape != (len(labels), 4):
            raise ConfigurationError(
                f"target {index} has boxes of shape {tuple(boxes.shape)} and {len(labels)} labels; pass (G, 4) and"
                " (G,)."
            )
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
            raise ConfigurationError(
                f"target {index} has labels {int(labels.min())} to {int(labels.max())}; the detector has classes 0 to"
                f" {num_classes - 1}."
            )
        if not (boxes.isfinite().all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
            raise ConfigurationError(
                f"target {index} has a box with a value that is not finite, or that ends before it starts; pass x_min,"
                " y_min, x_max, y_max."
            )
