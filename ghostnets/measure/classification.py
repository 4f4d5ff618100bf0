"""Measures of a classifier from its scores: areas under curves, calibration, temperature. Importable without torch."""

import math

import numpy as np
import numpy.typing as npt

from ghostnets.errors import ConfigurationError

__all__ = ["average_precision", "calibration_error", "fit_temperature", "roc_area"]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def roc_area(scores: npt.NDArray[np.floating], is_positive: Booleans) -> float | None:
    """Area under the ROC curve: the share of (positive, negative) pairs ranked correctly; ties count half.

    Args:
        scores: Scores of the samples, (N,).
        is_positive: Whether each sample is positive, (N,).

    Returns:
        Area in [0, 1]; None if there are no positives or no negatives.
    """
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1; ties have their mean
    return float((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: npt.NDArray[np.floating], is_positive: Booleans) -> float | None:
    """Area under the precision-recall curve as the sum of precisions at each threshold, weighted by the gain in recall.

    Args:
        scores: Scores of the samples, (N,).
        is_positive: Whether each sample is positive, (N,).

    Returns:
        Area in [0, 1]; None if there are no positives.
    """
    positives = int(is_positive.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    correct = np.cumsum(is_positive[order])
    is_last = np.append(np.diff(scores[order]) != 0, True)  # the last of equal scores: a threshold
    correct, selected = correct[is_last], np.flatnonzero(is_last) + 1
    gains = np.diff(correct, prepend=0) / positives
    return float((gains * correct / selected).sum())


def calibration_error(confidences: npt.NDArray[np.floating], is_correct: Booleans, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599, equation 3).

    The mean over all images of the difference between accuracy and mean confidence of their bin; bins have equal width.

    Args:
        confidences: Probability of the predicted class, (N,), N >= 1.
        is_correct: Whether the prediction is correct, (N,).
        bins: Number of bins.
    """
    index = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)  # (low, high]
    gaps = np.bincount(index, is_correct, bins) - np.bincount(index, confidences, bins)
    return float(np.abs(gaps).sum() / len(confidences))


def fit_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Find the softmax or sigmoid temperature with the lowest cross-entropy (Guo et al., arXiv 1706.04599).

    The cross-entropy, binary for multi-label data, is convex in the inverse temperature; a bisection finds the zero of
    its derivative (section 4.2).

    Args:
        logits: Logits of images that the network was not trained on, (N, classes).
        labels: Class indices, (N,); for multi-label data (N, classes), 1 for each class of an image, else 0.

    Returns:
        The temperature T of ``softmax(logits / T)``, or of ``sigmoid(logits / T)`` for multi-label data, within 0.05
        and 20, four significant digits.

    Raises:
        ConfigurationError: There is no image, or only one class.
    """
    if not len(logits) or logits.shape[1] < 2:
        raise ConfigurationError(
            f"a temperature cannot be fitted to scores of shape {logits.shape}; pass validation images, and a network"
            " with at least two classes."
        )
    exact = logits.astype(np.float64)
    centred = exact - exact.max(1, keepdims=True)
    chosen = centred[np.arange(len(labels)), labels] if labels.ndim == 1 else exact * labels
    expected = chosen.mean()

    def derivative(scale: float) -> float:
        """Return the derivative of the cross-entropy with respect to the inverse temperature."""
        if labels.ndim == 2:
            probabilities = 0.5 * (1 + np.tanh(scale / 2 * exact))  # sigmoid
            return float((probabilities * exact).mean() - expected)
        powers = np.exp(scale * centred)
        return float((powers * centred).sum(1) @ (1 / powers.sum(1)) / len(labels) - expected)

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if derivative(middle) > 0 else (middle, high)
    return float(f"{1 / math.sqrt(low * high):.4g}")
