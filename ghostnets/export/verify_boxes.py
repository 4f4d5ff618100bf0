"""Comparison of a detector's exported file with its network, by predictions, by boxes and by the objects found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Description, decode_predictions, suppress
from ghostnets.artefacts.boxes import Boxes, compute_iou

if TYPE_CHECKING:
    from torch import nn

    from ghostnets.preprocessing import Preprocessing

__all__ = ["compare_boxes", "count_objects", "predict_by_network"]

Array = npt.NDArray[np.float32]
LOWEST_SCORE = 0.05  # points are compared from this score in the file or in the network
MOST_LIKELY = 100  # highest-scoring points of an image, which are compared at any score
SAME_PIXELS = 0.01  # boxes whose corners are closer than this, in pixels, are equal even if they have no area
SAME_OBJECT = 0.8  # lowest IoU of two boxes of one object
BATCH_SIZE = 16


def predict_by_network(network: "nn.Module", preprocessing: "Preprocessing", images: npt.NDArray[np.uint8]) -> Array:
    """Return the outputs of a network in eager torch for images, uint8 (N, S, S, C)."""
    import torch

    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    with torch.inference_mode():
        inputs = (preprocessing.normalize(torch.from_numpy(batch).permute(0, 3, 1, 2)) for batch in batches)
        predictions: Array = torch.cat([network(x) for x in inputs]).numpy()
    return predictions


def compare_boxes(actual: Array, expected: Array, description: Description) -> dict[str, Any]:
    """Compare predictions (N, P, classes + 4 * bins) of the file and the network.

    Returns:
        The fields of ``ExportComparison`` about differences.
    """
    side, strides, bins = description.preprocessing.image_size, description.strides, description.bins
    boxes, scores = decode_predictions(actual, side, strides, bins=bins)
    expected_boxes, expected_scores = decode_predictions(expected, side, strides, bins=bins)
    highest = np.maximum(scores, expected_scores).max(-1)  # (N, P)
    least = np.sort(highest, axis=1)[:, -min(MOST_LIKELY, highest.shape[1])]
    chosen = highest >= np.minimum(least, LOWEST_SCORE)[:, None]
    overlaps = _compute_ious(boxes[chosen], expected_boxes[chosen])
    difference = np.abs(actual - expected) / (np.abs(expected).max() or 1.0)
    found = [suppress(*each) for each in zip(boxes, scores, strict=True)]
    wanted = [suppress(*each) for each in zip(expected_boxes, expected_scores, strict=True)]
    same, objects = count_objects(found, wanted)
    return {
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "max_probability_difference": float(np.abs(scores - expected_scores).max()),
        "top1_agreement": float((scores[chosen].argmax(-1) == expected_scores[chosen].argmax(-1)).mean()),
        "max_feature_difference": None,
        "min_iou": float(overlaps.min()),
        "boxes": int(chosen.sum()),
        "object_agreement": same / objects if objects else None,
    }


def count_objects(found: Sequence[Boxes], expected: Sequence[Boxes]) -> tuple[int, int]:
    """Count the objects that two networks both find.

    Args:
        found: Objects of one network, by image.
        expected: Objects of the other, for the same images.

    Returns:
        Number of the objects of either network with a partner in the other's: one of the same class whose box has an
        IoU of at least ``SAME_OBJECT`` with its own, each partner of one object only. Number of all objects.
    """
    same = objects = 0
    for own, other in zip(found, expected, strict=True):
        objects += len(own.labels) + len(other.labels)
        is_free = np.ones(len(other.labels), bool)
        for box, label in zip(own.boxes, own.labels, strict=True):
            candidates = np.flatnonzero(is_free & (other.labels == label))
            overlaps = compute_iou(box, other.boxes[candidates])
            if len(candidates) and overlaps.max() >= SAME_OBJECT:
                is_free[candidates[overlaps.argmax()]] = False
        same += 2 * int((~is_free).sum())
    return same, objects


def _compute_ious(boxes: Array, others: Array) -> Array:
    """Return the IoU, (D,), of each of ``boxes``, (D, 4), with the box at the same index of ``others``, (D, 4)."""
    inner = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    intersection = inner.clip(0).prod(-1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (others[:, 2:] - others[:, :2]).prod(-1) - intersection
    overlaps = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    overlaps[np.abs(boxes - others).max(-1) < SAME_PIXELS] = 1
    result: Array = overlaps
    return result
