"""Evaluation of a detector: COCO's average precision, and the detections of each image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.measure import AveragePrecision, DetectionMetrics, ImageDetections, ImageTruth
from ghostnets.models.detection import Detections, Detector, decode_boxes, select_boxes
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.detection.supervised import BoxTargets, compute_losses

__all__ = ["BoxEvaluation", "ClassPrecision", "evaluate_boxes", "unpack_targets"]


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
class ClassPrecision:
    """Average precision of one class.

    Attributes:
        name: Name of the class.
        boxes: Number of labelled boxes.
        mean: Average precision, averaged over the IoU thresholds 0.5, 0.55, ..., 0.95; None without labelled boxes.
        at_50: Average precision at an IoU threshold of 0.5; None without labelled boxes.
    """

    name: str
    boxes: int
    mean: float | None
    at_50: float | None


@dataclass(frozen=True)
class BoxEvaluation:
    """Results of a detector on a set of images.

    Attributes:
        images: Number of images.
        loss: Mean loss of a batch.
        metrics: Average precisions.
        classes: Results by class.
        detections: Detections of each image, in pixels of the input.
        targets: Objects of each image, in pixels of the input.
    """

    images: int
    loss: float
    metrics: DetectionMetrics
    classes: tuple[ClassPrecision, ...]
    detections: tuple[Detections, ...] = field(repr=False, compare=False)
    targets: tuple[BoxTargets, ...] = field(repr=False, compare=False)

    kind = "boxes"
    multi_label = False

    @property
    def scores(self) -> dict[str, float]:
        """Metrics that are recorded for each epoch; 0 without labelled boxes."""
        return {"map": self.metrics.mean or 0.0, "ap50": self.metrics.at_50 or 0.0}

    def headline(self) -> dict[str, str]:
        """Return the main metrics, formatted: name -> value."""
        metrics = self.metrics
        figures = {"mAP": metrics.mean, "AP50": metrics.at_50, "AP75": metrics.at_75, "recall": metrics.recall}
        return {name: "no labelled boxes" if value is None else f"{value:.1%}" for name, value in figures.items()}

    def describe_baseline(self) -> str:
        """Describe in a sentence the number of labelled boxes, and in another the classes without boxes."""
        absent = [row.name for row in self.classes if not row.boxes]
        total = sum(row.boxes for row in self.classes)
        sentence = f"There are {total:,} labelled boxes of {len(self.classes) - len(absent)} classes."
        return sentence + (
            f" Classes without boxes, which are not in the means: {', '.join(absent[:10])}." if absent else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all results except those of single images, as JSON values."""
        metrics = self.metrics
        return {
            "images": self.images,
            "loss": self.loss,
            "mean_average_precision": metrics.mean or 0.0,
            "ap50": metrics.at_50,
            "ap75": metrics.at_75,
            "recall": metrics.recall,
            "classes": [
                {"name": row.name, "boxes": row.boxes, "average_precision": row.mean, "ap50": row.at_50}
                for row in self.classes
            ],
        }


@torch.inference_mode()
def evaluate_boxes(
    detector: Detector,
    images: ImageDataset,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    batch_size: int = 16,
) -> BoxEvaluation:
    """Evaluate a detector; it is left in evaluation mode.

    IoUs do not change when images are stretched together with their boxes, so they are computed in pixels of the input.

    Args:
        detector: The detector.
        images: Images that ``BoxFolder`` read for evaluation, with packed boxes.
        preprocessing: Preprocessing of the detector.
        class_names: Class names in the order of the labels.
        batch_size: Number of images per batch.
    """
    detector.eval()
    device, size = next(detector.parameters()).device, preprocessing.image_size
    average_precision = AveragePrecision(len(class_names))
    all_detections: list[Detections] = []
    all_targets: list[BoxTargets] = []
    loss = 0.0
    for batch in evaluation_batches(images, preprocessing, batch_size=batch_size):
        predictions = detector(preprocessing.normalize(batch.pixels.to(device))).float().cpu()
        boxes, scores = decode_boxes(predictions, (size, size), detector.strides, bins=detector.bins)
        targets = unpack_targets(batch.labels, size)
        loss += len(batch.labels) * float(compute_losses(detector, predictions, targets, (size, size)).total)
        for detections, target in zip(map(select_boxes, boxes, scores), targets, strict=True):
            average_precision.add(_as_arrays(detections), _as_truth(target))
            all_detections.append(detections)
        all_targets += targets
    metrics = average_precision.metrics()
    classes = zip(class_names, metrics.num_objects, metrics.by_class, metrics.by_class_at_50, strict=True)
    return BoxEvaluation(
        images=len(images),
        loss=loss / len(images),
        metrics=metrics,
        classes=tuple(ClassPrecision(*row) for row in classes),
        detections=tuple(all_detections),
        targets=tuple(all_targets),
    )


def _as_arrays(detections: Detections) -> ImageDetections:
    return ImageDetections(detections.boxes.numpy(), detections.scores.numpy(), detections.labels.numpy())


def _as_truth(target: BoxTargets) -> ImageTruth:
    is_crowd = None if target.is_crowd is None else target.is_crowd.numpy()
    return ImageTruth(target.boxes.numpy(), target.labels.numpy(), is_crowd)
