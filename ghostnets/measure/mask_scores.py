"""Results of a segmentation network by class, for JSON, console and reports. Loads no torch."""

from dataclasses import dataclass, field
from typing import Any

from ghostnets.measure.segmentation import PixelConfusion

__all__ = ["ClassOverlap", "MaskScores"]

SHOWN = 10  # names in a sentence


@dataclass(frozen=True)
class ClassOverlap:
    """Results of one class.

    Attributes:
        name: Name of the class.
        pixels: Labelled pixels.
        iou: Intersection over union; None without a labelled pixel.
        accuracy: Share of the labelled pixels that are predicted as the class; None without any.
    """

    name: str
    pixels: int
    iou: float | None
    accuracy: float | None


@dataclass(frozen=True)
class MaskScores:
    """Results of a segmentation network on a set of images.

    Attributes:
        images: Number of images.
        confusion: Confusion of the pixels of all images.
        class_names: Names in the order of the labels.
    """

    images: int
    confusion: PixelConfusion = field(compare=False)
    class_names: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassOverlap, ...]:
        """Results by class."""
        confusion = self.confusion
        rows = zip(self.class_names, confusion.labelled.tolist(), confusion.ious, confusion.accuracies, strict=True)
        return tuple(ClassOverlap(*row) for row in rows)

    def headline(self) -> dict[str, str]:
        """Return the main metrics, formatted: name -> value."""
        figures = {"mIoU": self.confusion.mean_iou, "pixel accuracy": self.confusion.pixel_accuracy}
        return {name: "no labelled pixel" if value is None else f"{value:.1%}" for name, value in figures.items()}

    def most_confused(self) -> list[tuple[int, int, int]]:
        """Pairs of classes that are confused: (true, predicted, pixels), the most pixels first."""
        counts = self.confusion.matrix
        pairs = [
            (true, predicted, pixels)
            for true, row in enumerate(counts.tolist())
            for predicted, pixels in enumerate(row)
            if true != predicted and pixels
        ]
        return sorted(pairs, key=lambda pair: (-pair[2], pair))

    def describe_baseline(self) -> str:
        """One sentence on the accuracy of always predicting the largest class, and on classes without a pixel."""
        absent = [row.name for row in self.classes if not row.pixels]
        total = max(1, sum(row.pixels for row in self.classes))
        largest = max(self.classes, key=lambda row: row.pixels)
        sentence = (
            f"Always predicting {largest.name}, the largest class, would have a pixel accuracy of"
            f" {largest.pixels / total:.1%}."
        )
        return sentence + (f" Without a pixel, and not in the mean: {', '.join(absent[:SHOWN])}." if absent else "")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "images": self.images,
            "mean_iou": self.confusion.mean_iou,
            "pixel_accuracy": self.confusion.pixel_accuracy,
            "classes": [
                {"name": row.name, "pixels": row.pixels, "iou": row.iou, "accuracy": row.accuracy}
                for row in self.classes
            ],
            "confusion": self.confusion.matrix.tolist(),
        }
