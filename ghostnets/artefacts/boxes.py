"""Decoding and non-maximum suppression of a detector's predictions in numpy, used with every runtime.

They do without torch what ``decode_boxes`` and ``select_boxes`` of ``ghostnets.models.detection`` do; a test compares
the two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.scores import Array, sigmoid

__all__ = [
    "MAX_BOXES",
    "MAX_IOU",
    "MIN_SCORE",
    "Boxes",
    "compute_iou",
    "count_points",
    "decode_predictions",
    "suppress",
]

MIN_SCORE, MAX_IOU, MAX_BOXES, MAX_CANDIDATES = 0.3, 0.6, 100, 1000


class Boxes(NamedTuple):
    """Boxes of one image, highest score first."""

    boxes: Array  # (D, 4), x_min, y_min, x_max, y_max in pixels
    scores: Array  # (D,), in [0, 1]
    labels: npt.NDArray[np.int64]  # (D,), class indices


def count_points(side: int, strides: Sequence[int]) -> int:
    """Return the number of a detector's predictions for a square image of ``side`` pixels."""
    return sum((-(-side // stride)) ** 2 for stride in strides)


def decode_predictions(predictions: Array, side: int, strides: Sequence[int], *, bins: int) -> tuple[Array, Array]:
    """Decode predictions for square images into boxes and scores, like ``models.detection.decode_boxes``.

    Args:
        predictions: Output of a detector, (N, P, classes + 4 * bins): for each point the class logits, then the logits
            of ``bins`` distances to the left, top, right and bottom side.
        side: Height and width of the images in pixels.
        strides: Strides of the levels.
        bins: Number of bins of each distance's distribution.

    Returns:
        Boxes (N, P, 4), x_min, y_min, x_max, y_max in pixels, clipped to the image, and scores (N, P, classes) in
        [0, 1].
    """
    points, scales = [], []
    for stride in strides:
        y, x = np.mgrid[0 : -(-side // stride), 0 : -(-side // stride)].reshape(2, -1)
        points.append(np.stack([x, y], 1) * stride)
        scales.append(np.full(len(x), stride))
    corners, scale = np.concatenate(points).astype(np.float32), np.concatenate(scales).astype(np.float32)
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
    """Select the boxes of one image by non-maximum suppression in each class, like ``models.detection.select_boxes``.

    Args:
        boxes: Boxes of one image, (P, 4), x_min, y_min, x_max, y_max.
        scores: Scores of these boxes, (P, classes).
        min_score: Score that a box must exceed.
        max_iou: IoU with a higher-scoring box of the same class above which a box is dropped.
        max_boxes: Maximum number of returned boxes; those with the highest scores are kept.
        max_candidates: Maximum number of boxes before the suppression; those with the highest scores are kept.
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
        same_class = index + 1 + np.flatnonzero(is_left[index + 1 :] & (label[index + 1 :] == label[index]))
        is_left[same_class[compute_iou(candidates[index], candidates[same_class]) > max_iou]] = False
    return Boxes(candidates[kept], found[kept], label[kept])


def compute_iou(box: Array, boxes: Array) -> Array:
    """Return the intersection over union, (D,), of a box, (4,), with each of ``boxes``, (D, 4); 0 if both are empty."""
    inner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = inner.clip(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (box[2:] - box[:2]).prod()
    union = areas - intersection
    result: Array = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return result
