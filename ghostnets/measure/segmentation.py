"""Measures of segmentation: confusion of pixels, intersection over union."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.errors import ConfigurationError

__all__ = ["PixelConfusion"]

IGNORED = 255


@dataclass(frozen=True)
class PixelConfusion:
    """Numbers of pixels by true and predicted class.

    Attributes:
        matrix: int64 (classes, classes), true classes in rows, predicted ones in columns.
    """

    matrix: npt.NDArray[np.int64]

    @classmethod
    def count(cls, truth: npt.NDArray[Any], predicted: npt.NDArray[Any], num_classes: int) -> "PixelConfusion":
        """Count the pixels of images.

        Args:
            truth: True class of each pixel, integers of any shape; pixels with 255 are not counted.
            predicted: Predicted class of each pixel, of the same shape.
            num_classes: Number of classes, at most 255.

        Raises:
            ConfigurationError: The shapes differ, or a class is out of range.
        """
        if truth.shape != predicted.shape:
            raise ConfigurationError(f"PixelConfusion: truth is {truth.shape} and predicted {predicted.shape}.")
        counted = truth != IGNORED
        pairs = truth[counted].astype(np.int64) * num_classes + predicted[counted]
        if len(pairs) and (max(truth[counted].max(), predicted[counted].max()) >= num_classes or pairs.min() < 0):
            raise ConfigurationError(f"PixelConfusion: a class is not from 0 to {num_classes - 1}.")
        counts = np.bincount(pairs, minlength=num_classes * num_classes)
        return cls(counts.reshape(num_classes, num_classes))

    def __add__(self, other: "PixelConfusion") -> "PixelConfusion":
        return PixelConfusion(self.matrix + other.matrix)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Labelled pixels of each class."""
        return self.matrix.sum(axis=1)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Labelled pixels that are predicted as each class."""
        return self.matrix.sum(axis=0)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the labelled pixels whose class is predicted; None without labelled pixels."""
        total = int(self.matrix.sum())
        return int(self.matrix.trace()) / total if total else None

    @property
    def ious(self) -> list[float | None]:
        """Intersection over union of each class; None without a labelled pixel of it."""
        hits = self.matrix.diagonal()
        unions = self.labelled + self.predicted - hits
        rows = zip(hits.tolist(), unions.tolist(), self.labelled.tolist(), strict=True)
        return [hit / union if labelled else None for hit, union, labelled in rows]

    @property
    def accuracies(self) -> list[float | None]:
        """Share of the pixels of each class that are predicted as such (recall); None without a labelled pixel."""
        rows = zip(self.matrix.diagonal().tolist(), self.labelled.tolist(), strict=True)
        return [hit / labelled if labelled else None for hit, labelled in rows]

    @property
    def mean_iou(self) -> float | None:
        """Mean intersection over union of the classes with labelled pixels; None without any."""
        values = [value for value in self.ious if value is not None]
        return sum(values) / len(values) if values else None
