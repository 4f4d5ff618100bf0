"""Evaluation of a detector: COCO's average precision, and the detections of each image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.measure import AveragePrecision, BoxScores, ImageDetections, ImageTruth
from ghostnets.models.detection import Detections, Detector, decode_boxes, select_boxes
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.detection.supervised import BoxTargets, compute_losses
from ghostnets.train.distributed import DistributedContext

__all__ = ["BoxEvaluation", "evaluate_boxes", "unpack_targets"]


def unpack_targets(labels: Tensor, size: int) -> list[BoxTargets]:
    """Return the objects of each image in pixels of the input.

    Args:
        labels: Packed boxes, float32 (N, G, 6) (``data.boxes.folder.BoxFolder``).
        size: Side of the input in pixels.
    """
    targets = []
    for rows in labels:
        rows = rows[rows[:, 4] >= 0]
        targets.append(BoxTargets(rows[:, :4] * size, rows[:, 4].long(), rows[:, 5] > 0))
    return targets


@dataclass(frozen=True)
class BoxEvaluation(BoxScores):
    """Results of a detector on a set of images, with those of each image.

    Attributes:
        loss: Mean loss of a batch.
        detections: Detections of each image, in pixels of the input.
        targets: Objects of each image, in pixels of the input.
    """

    loss: float
    detections: tuple[Detections, ...] = field(repr=False, compare=False)
    targets: tuple[BoxTargets, ...] = field(repr=False, compare=False)

    kind = "boxes"
    multi_label = False

    @property
    def scores(self) -> dict[str, float]:
        """Metrics that are recorded for each epoch; 0 without labelled boxes."""
        return {"map": self.metrics.mean or 0.0, "ap50": self.metrics.at_50 or 0.0}

    def to_dict(self) -> dict[str, Any]:
        """Return all results except those of single images, as JSON values."""
        return {"images": self.images, "loss": self.loss, **super().to_dict()}


@torch.inference_mode()
def evaluate_boxes(
    detector: Detector,
    images: ImageDataset,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    batch_size: int = 16,
    distributed: DistributedContext | None = None,
) -> BoxEvaluation:
    """Evaluate a detector; it is left in evaluation mode.

    IoUs do not change when images are stretched together with their boxes, so they are computed in pixels of the input.

    Args:
        detector: The detector.
        images: Images that ``BoxFolder`` read for evaluation, with packed boxes.
        preprocessing: Preprocessing of the detector.
        class_names: Class names in the order of the labels.
        batch_size: Number of images per batch.
        distributed: Processes that divide the images among them; all get the same result.
    """
    distributed = distributed or DistributedContext()
    detector.eval()
    device, size = next(detector.parameters()).device, preprocessing.image_size
    all_detections: list[Detections] = []
    all_targets: list[BoxTargets] = []
    loss = 0.0
    for batch in evaluation_batches(
        images, preprocessing, batch_size=batch_size, rank=distributed.rank, world_size=distributed.world_size
    ):
        predictions = detector(preprocessing.normalize(batch.pixels.to(device))).float().cpu()
        boxes, scores = decode_boxes(predictions, (size, size), detector.strides, bins=detector.bins)
        targets = unpack_targets(batch.labels, size)
        loss += len(batch.labels) * float(compute_losses(detector, predictions, targets, (size, size)).total)
        all_detections += map(select_boxes, boxes, scores)
        all_targets += targets
    all_detections, all_targets = distributed.gather(all_detections), distributed.gather(all_targets)
    (loss,) = distributed.sum([loss])
    average_precision = AveragePrecision(len(class_names))
    for detections, target in zip(all_detections, all_targets, strict=True):
        average_precision.add(_as_arrays(detections), _as_truth(target))
    return BoxEvaluation(
        images=len(images),
        metrics=average_precision.metrics(),
        class_names=tuple(class_names),
        loss=loss / len(images),
        detections=tuple(all_detections),
        targets=tuple(all_targets),
    )


def _as_arrays(detections: Detections) -> ImageDetections:
    return ImageDetections(detections.boxes.numpy(), detections.scores.numpy(), detections.labels.numpy())


def _as_truth(target: BoxTargets) -> ImageTruth:
    is_crowd = None if target.is_crowd is None else target.is_crowd.numpy()
    return ImageTruth(target.boxes.numpy(), target.labels.numpy(), is_crowd)
