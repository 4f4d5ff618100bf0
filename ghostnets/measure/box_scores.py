"""Average precisions of a detector by class, for JSON, console and reports. Loads no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ghostnets.measure.detection import DetectionMetrics
from ghostnets.terminal import format_count

__all__ = ["BoxScores", "ClassPrecision"]

SHOWN = 10  # names in a sentence
NO_OBJECT = "no object"  # row of the detections without an object


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
class BoxScores:
    """Average precisions of a detector on a set of images.

    Attributes:
        images: Number of images.
        metrics: Average precisions.
        class_names: Names in the order of the labels.
    """

    images: int
    metrics: DetectionMetrics
    class_names: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassPrecision, ...]:
        """Results by class."""
        metrics = self.metrics
        rows = zip(self.class_names, metrics.num_objects, metrics.by_class, metrics.by_class_at_50, strict=True)
        return tuple(ClassPrecision(*row) for row in rows)

    def most_confused(self) -> list[tuple[int, int, int]]:
        """Pairs of classes that are confused: (true, detected, objects), the most objects first."""
        counts = self.metrics.confusion[:-1, :-1]
        pairs = [(int(true), int(found), int(counts[true, found])) for true, found in np.argwhere(counts)]
        return sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda pair: (-pair[2], pair))

    def confusion_rows(self) -> dict[str, list[int]]:
        """Numbers of objects of each class by the class that they are detected as, then of missed objects.

        The last row has the detections without an object.
        """
        return dict(zip([*self.class_names, NO_OBJECT], self.metrics.confusion.tolist(), strict=True))

    def headline(self) -> dict[str, str]:
        """Return the main metrics, formatted: name -> value."""
        metrics = self.metrics
        figures = {"mAP": metrics.mean, "AP50": metrics.at_50, "AP75": metrics.at_75, "recall": metrics.recall}
        return {name: "no labelled boxes" if value is None else f"{value:.1%}" for name, value in figures.items()}

    def describe_baseline(self) -> str:
        """Describe in a sentence the number of labelled boxes, and in another the classes without boxes."""
        absent = [row.name for row in self.classes if not row.boxes]
        total = sum(row.boxes for row in self.classes)
        classes = format_count(len(self.classes) - len(absent), "class")
        return f"Labelled boxes: {total:,}, of {classes}." + (
            f" Classes without boxes, which are not in the means: {', '.join(absent[:SHOWN])}." if absent else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        metrics = self.metrics
        return {
            "images": self.images,
            "mean_average_precision": metrics.mean,
            "ap50": metrics.at_50,
            "ap75": metrics.at_75,
            "recall": metrics.recall,
            "classes": [
                {"name": row.name, "boxes": row.boxes, "average_precision": row.mean, "ap50": row.at_50}
                for row in self.classes
            ],
            "confusion": metrics.confusion.tolist(),
        }
