"""From a detector's predictions to boxes, the same for every runtime: decoding and non-maximum suppression in numpy.

The functions of ``ghostnets.models.detection`` without torch; a test compares the two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.scores import Array, sigmoid

__all__ = ["MAX_BOXES", "MAX_IOU", "MIN_SCORE", "Boxes", "decode_predictions", "iou", "point_count", "suppress"]

MIN_SCORE, MAX_IOU, MAX_BOXES, MAX_CANDIDATES = 0.3, 0.6, 100, 1000


class Boxes(NamedTuple):
    """Boxes of one image, from high to low score."""

    boxes: Array  # (D, 4), x_min, y_min, x_max, y_max in pixels
    scores: Array  # (D,), in [0, 1]
    labels: npt.NDArray[np.int64]  # (D,), index of the class


def point_count(side: int, strides: Sequence[int]) -> int:
    """Number of a detector's predictions for a square image."""
    return sum((-(-side // stride)) ** 2 for stride in strides)


def decode_predictions(predictions: Array, side: int, strides: Sequence[int], *, bins: int) -> tuple[Array, Array]:
    """Decode predictions for square images to boxes and scores, as ``models.detection.decode_boxes``.

    Args:
        predictions: (N, P, classes + 4 * bins): for each point the logits of its classes, then for left, top, right and
            bottom the logits of ``bins`` distances.
        side: Height and width of the images in pixels.
        strides: Strides of the levels.
        bins: Number of values of each distance's distribution.

    Returns:
        Boxes (N, P, 4), clipped to the image, in its pixels, and scores (N, P, classes) in [0, 1].
    """
    points, steps = [], []
    for stride in strides:
        y, x = np.mgrid[0 : -(-side // stride), 0 : -(-side // stride)].reshape(2, -1)
        points.append(np.stack([x, y], 1) * stride)
        steps.append(np.full(len(x), stride))
    corners, scale = np.concatenate(points).astype(np.float32), np.concatenate(steps).astype(np.float32)
    logits = predictions[..., -4 * bins :].reshape(*predictions.shape[:2], 4, bins)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    means = (powers @ np.arange(bins, dtype=np.float32)) / powers.sum(-1)
    distances = means * scale[:, None]
    boxes = np.concatenate([corners - distances[..., :2], corners + distances[..., 2:]], axis=-1)
    return boxes.clip(0, side), sigmoid(predictions[..., : -4 * bins])


def suppress(
    boxes: Array,
    scores: Array,
    *,
    min_score: float = MIN_SCORE,
    max_iou: float = MAX_IOU,
    max_boxes: int = MAX_BOXES,
    max_candidates: int = MAX_CANDIDATES,
) -> Boxes:
    """Select the boxes of one image: non-maximum suppression in each class, as ``models.detection.select_boxes``.

    Args:
        boxes: (P, 4).
        scores: (P, classes).
        min_score: Boxes with a score at or below this are dropped.
        max_iou: Boxes whose IoU with a higher-scoring box of their class exceeds this are dropped.
        max_boxes: Largest number of boxes that are returned: those with the highest scores.
        max_candidates: Largest number of boxes before the suppression: those with the highest scores.
    """
    point, label = np.nonzero(scores > min_score)
    found = scores[point, label]
    best = np.argsort(-found, kind="stable")[:max_candidates]
    candidates, found, label = boxes[point[best]], found[best], label[best]
    kept: list[int] = []
    is_left = np.ones(len(best), bool)
    for index in range(len(best)):
        if not is_left[index]:
            continue
        kept.append(index)
        if len(kept) == max_boxes:
            break
        rivals = index + 1 + np.flatnonzero(is_left[index + 1 :] & (label[index + 1 :] == label[index]))
        is_left[rivals[iou(candidates[index], candidates[rivals]) > max_iou]] = False
    return Boxes(candidates[kept], found[kept], label[kept])


def iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box (4,) with others (D, 4): (D,), 0 where both are empty."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = inner.clip(0).prod(-1)
    areas = (others[:, 2:] - others[:, :2]).prod(-1) + (box[2:] - box[:2]).prod()
    union = areas - intersection
    result: Array = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return result
