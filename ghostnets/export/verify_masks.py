"""Comparison of a segmentation network's exported file with the network, by the classes of pixels."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["compare_masks"]

Array = npt.NDArray[np.float32]
LEAST_MARGIN = (
    1e-3  # pixels are compared whose two highest probabilities differ by more: others are decided by rounding
)


def compare_masks(actual: Array, expected: Array) -> dict[str, Any]:
    """Compare logits (N, classes, H, W) of the file and the network.

    Returns:
        The fields of ``ExportComparison`` about differences.
    """
    from ghostnets.measure import PixelConfusion  # imports torch, which is not loaded while the file runs

    scale = np.abs(expected).max() or 1.0
    differences, probability_differences, same, pixels = [], [], 0, 0
    confusion = PixelConfusion(np.zeros((expected.shape[1],) * 2, np.int64))
    for own, wanted in zip(actual, expected, strict=True):
        difference = np.abs(own - wanted) / scale
        differences.append((difference.max(), difference.mean()))
        probabilities, wanted_probabilities = _softmax(own), _softmax(wanted)
        probability_differences.append(np.abs(probabilities - wanted_probabilities).max())
        highest = np.sort(wanted_probabilities, axis=0)[-2:]
        margin = highest[-1] - highest[0] if len(highest) > 1 else np.ones(highest.shape[1:], np.float32)
        clear = margin > LEAST_MARGIN
        confusion += PixelConfusion.count(wanted.argmax(0), own.argmax(0), len(own))
        same += int((own.argmax(0) == wanted.argmax(0))[clear].sum())
        pixels += int(clear.sum())
    return {
        "max_difference": float(max(largest for largest, _ in differences)),
        "mean_difference": float(np.mean([mean for _, mean in differences])),
        "max_probability_difference": float(max(probability_differences)),
        "top1_agreement": same / pixels if pixels else 1.0,
        "max_feature_difference": None,
        "pixels": pixels,
        "mean_iou": confusion.mean_iou,
    }


def _softmax(logits: Array) -> Array:
    """Softmax over the classes, (classes, H, W)."""
    powers = np.exp(logits - logits.max(0))
    result: Array = powers / powers.sum(0)
    return result
