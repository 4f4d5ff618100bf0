"""COCO's average precision of detections (https://cocodataset.org/#detection-eval). Importable without torch.

The rules are those of ``pycocotools.cocoeval.COCOeval`` for boxes: greedy matching in descending order of score, ten
IoU thresholds, 101 recalls, at most 100 detections per class and image. Crowds are ignored, and so are objects outside
a range of areas for the metrics of that range.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.errors import ConfigurationError

__all__ = ["AveragePrecision", "DetectionMetrics", "ImageDetections", "ImageTruth", "box_iou", "count_confusion"]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Booleans = npt.NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # IoU thresholds
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100  # per class and image
CONFUSION_SCORE = 0.3  # detections with a lower score are not counted in the confusion
CONFUSION_IOU = 0.5  # a detection with a lower IoU with every object is of none
AREAS = {  # smallest and largest area in square pixels
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class ImageDetections(NamedTuple):
    """Detections of one image."""

    boxes: Floats  # (D, 4), x_min, y_min, x_max, y_max in pixels
    scores: Floats  # (D,)
    labels: Integers  # (D,), class indices


class ImageTruth(NamedTuple):
    """Labelled objects of one image."""

    boxes: Floats  # (G, 4), x_min, y_min, x_max, y_max in pixels
    labels: Integers  # (G,), class indices
    is_crowd: Booleans | None = None  # (G,), regions with several objects, which are ignored; by default none
    areas: Floats | None = None  # (G,), square pixels; by default the areas of the boxes


class DetectionMetrics(NamedTuple):
    """Average precisions and recall in [0, 1]; None without labelled objects."""

    mean: float | None  # mAP: mean over classes and the IoU thresholds 0.5, 0.55, ..., 0.95
    at_50: float | None  # mAP at an IoU threshold of 0.5
    at_75: float | None  # mAP at an IoU threshold of 0.75
    small: float | None  # mAP of objects below 32 x 32 pixels
    medium: float | None  # mAP of objects up to 96 x 96 pixels
    large: float | None  # mAP of larger objects
    recall: float | None  # average recall: highest recall, averaged over classes and IoU thresholds
    by_class: tuple[float | None, ...]  # average precision of each class, averaged over the IoU thresholds
    by_class_at_50: tuple[float | None, ...]  # average precision of each class at an IoU threshold of 0.5
    num_objects: tuple[int, ...]  # labelled objects of each class, without crowds
    precision: Floats  # (classes, 10 thresholds, 101 recalls), NaN for a class without objects
    confusion: Integers  # (classes + 1, classes + 1), as ``count_confusion`` describes


class AveragePrecision:
    """Accumulates detections and labels image by image.

    >>> truth = ImageTruth(np.array([[0.0, 0, 10, 10]]), np.array([0]))
    >>> average_precision = AveragePrecision(num_classes=1)
    >>> average_precision.add(ImageDetections(np.array([[0.0, 0, 10, 8]]), np.array([0.9]), np.array([0])), truth)
    >>> metrics = average_precision.metrics()
    >>> round(metrics.mean, 3), round(metrics.at_50, 3)  # an IoU of 0.8
    (0.7, 1.0)

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # By range of areas, class and image: scores (D,), whether matched and whether ignored, (10, D) each.
        self._parts: list[list[list[tuple[Floats, Booleans, Booleans]]]] = [
            [[] for _ in range(num_classes)] for _ in AREAS
        ]
        self._positives = np.zeros((len(AREAS), num_classes), np.int64)
        self._confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)

    def add(self, detections: ImageDetections, truth: ImageTruth) -> None:
        """Add one image.

        Raises:
            ConfigurationError: The lengths of the arrays differ, or a label is out of range.
        """
        _check("detections", detections.boxes, detections.labels, detections.scores, num_classes=self.num_classes)
        optional = [values for values in (truth.is_crowd, truth.areas) if values is not None]
        _check("objects", truth.boxes, truth.labels, *optional, num_classes=self.num_classes)
        self._confusion += count_confusion(detections, truth, self.num_classes)
        for label in np.union1d(detections.labels, truth.labels):
            self._add_class(int(label), detections, truth)

    def _add_class(self, label: int, detections: ImageDetections, truth: ImageTruth) -> None:
        chosen = np.flatnonzero(detections.labels == label)
        chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")][:MAX_DETECTIONS]
        of_class = truth.labels == label
        boxes, objects = detections.boxes[chosen], truth.boxes[of_class]
        is_crowd = np.zeros(len(objects), np.bool_) if truth.is_crowd is None else truth.is_crowd[of_class]
        areas = _compute_areas(objects) if truth.areas is None else truth.areas[of_class]
        iou = box_iou(boxes, objects, is_crowd=is_crowd)
        for index, (smallest, largest) in enumerate(AREAS.values()):
            ignored = is_crowd | (areas < smallest) | (areas > largest)
            matched, matches_ignored = _match(iou, ignored, is_crowd)
            is_outside = (_compute_areas(boxes) < smallest) | (_compute_areas(boxes) > largest)
            self._parts[index][label].append(
                (detections.scores[chosen], matched, matches_ignored | (~matched & is_outside))
            )
            self._positives[index, label] += np.count_nonzero(~ignored)

    def metrics(self) -> DetectionMetrics:
        """Return the metrics of all images added so far."""
        precision, recall = zip(*(self._compute_curves(index) for index in range(len(AREAS))), strict=True)
        overall = precision[0]
        means = {name: _mean(values) for name, values in zip(AREAS, precision, strict=True)}
        return DetectionMetrics(
            mean=means["all"],
            at_50=_mean(overall[:, 0]),
            at_75=_mean(overall[:, 5]),
            small=means["small"],
            medium=means["medium"],
            large=means["large"],
            recall=_mean(recall[0]),
            by_class=tuple(_mean(values) for values in overall),
            by_class_at_50=tuple(_mean(values[0]) for values in overall),
            num_objects=tuple(self._positives[0].tolist()),
            precision=overall,
            confusion=self._confusion.copy(),
        )

    def _compute_curves(self, area: int) -> tuple[Floats, Floats]:
        """Return precision (classes, 10, 101) and highest recall (classes, 10) for the range of areas of this index.

        Both are NaN for a class without objects.
        """
        precision = np.full((self.num_classes, len(THRESHOLDS), len(RECALLS)), np.nan)
        recall = np.full((self.num_classes, len(THRESHOLDS)), np.nan)
        for label, parts in enumerate(self._parts[area]):
            positives = self._positives[area, label]
            if not positives:
                continue
            scores = np.concatenate([part[0] for part in parts])
            order = np.argsort(-scores, kind="stable")
            matched = np.concatenate([part[1] for part in parts], axis=1)[:, order]
            counted = ~np.concatenate([part[2] for part in parts], axis=1)[:, order]
            counts = zip(np.cumsum(matched & counted, axis=1), np.cumsum(~matched & counted, axis=1), strict=True)
            for index, (true_positives, false_positives) in enumerate(counts):
                precision[label, index], recall[label, index] = _compute_curve(
                    true_positives, false_positives, positives
                )
        return precision, recall


def _check(kind: str, boxes: Floats, labels: Integers, *others: npt.NDArray[np.generic], num_classes: int) -> None:
    if {len(values) for values in (labels, *others)} != {len(boxes)}:
        raise ConfigurationError(f"the {kind} of an image differ in length; pass one value of each kind for each box.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ConfigurationError(
            f"the {kind} of an image have classes {labels.min()} to {labels.max()}; they must be from 0 to"
            f" {num_classes - 1}."
        )


def _compute_curve(true_positives: Integers, false_positives: Integers, positives: int) -> tuple[Floats, float]:
    """Return the highest precision at or beyond each of ``RECALLS``, and the highest recall.

    Args:
        true_positives: Number of true positives among the first 1, 2, ... detections, (D,).
        false_positives: Number of false positives among them, (D,).
        positives: Number of labelled objects.
    """
    recall = true_positives / positives
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, RECALLS, side="left")
    return np.append(precision, 0.0)[index], float(recall[-1]) if len(recall) else 0.0


def _match(iou: Floats, ignored: Booleans, is_crowd: Booleans) -> tuple[Booleans, Booleans]:
    """Match detections to objects greedily, in the order of the detections.

    A detection takes the unmatched object with the highest IoU; an ignored object only if no other object reaches the
    threshold. A crowd can be matched any number of times.

    Args:
        iou: IoU of detections, in descending order of score, and objects, (D, G).
        ignored: Whether an object is ignored, (G,).
        is_crowd: Whether an object is a crowd, (G,).

    Returns:
        Whether each detection is matched, and whether it is matched to an ignored object, (10, D) each.
    """
    detections, objects = iou.shape
    matched = np.zeros((len(THRESHOLDS), detections), np.bool_)
    matches_ignored = np.zeros_like(matched)
    if not objects:
        return matched, matches_ignored
    order = np.argsort(ignored, kind="stable")  # the last of equal IoUs wins, as in pycocotools
    iou, ignored, is_crowd = iou[:, order], ignored[order], is_crowd[order]
    taken = np.zeros((len(THRESHOLDS), objects), np.bool_)
    thresholds = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    rows = np.arange(len(THRESHOLDS))
    for index in np.flatnonzero(iou.max(axis=1) >= THRESHOLDS[0]):
        possible = (iou[index] >= thresholds) & (~taken | is_crowd)
        possible &= ~ignored | ~(possible & ~ignored).any(axis=1, keepdims=True)
        values = np.where(possible, iou[index], -1.0)
        best = objects - 1 - np.argmax(values[:, ::-1], axis=1)
        found = possible[rows, best]
        taken[rows[found], best[found]] = True
        matched[:, index], matches_ignored[:, index] = found, found & ignored[best]
    return matched, matches_ignored


def count_confusion(detections: ImageDetections, truth: ImageTruth, num_classes: int) -> Integers:
    """Count the objects of an image by their class and by the class that they are detected as.

    Detections with a score of at least 0.3 are matched in descending order of score, each to the free object with the
    highest IoU, at least 0.5: first to objects of their class, then the others to objects of any class. Crowds are
    matched by any number of detections of their class, and not counted.

    Args:
        detections: Detections.
        truth: Labelled objects.
        num_classes: Number of classes C.

    Returns:
        Numbers of objects by true class (rows) and detected class (columns), int64 (C + 1, C + 1). The last column has
        the missed objects, the last row the detections without an object.
    """
    kept = np.flatnonzero(detections.scores >= CONFUSION_SCORE)
    kept = kept[np.argsort(-detections.scores[kept], kind="stable")]
    labels = detections.labels[kept]
    is_crowd = np.zeros(len(truth.labels), np.bool_) if truth.is_crowd is None else truth.is_crowd
    iou = box_iou(detections.boxes[kept], truth.boxes, is_crowd=is_crowd)
    is_same = labels[:, None] == truth.labels
    found_as = np.full(len(truth.labels), num_classes)
    unmatched = iou.max(axis=1, initial=0) >= CONFUSION_IOU
    is_false = np.ones(len(kept), np.bool_)
    for allowed in (is_same, ~is_same & ~is_crowd):
        for index in np.flatnonzero(unmatched):
            values = np.where(allowed[index] & (is_crowd | (found_as == num_classes)), iou[index], 0.0)
            if values[best := values.argmax()] >= CONFUSION_IOU:
                found_as[best] = labels[index]
                unmatched[index] = is_false[index] = False
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(counts, (truth.labels[~is_crowd], found_as[~is_crowd]), 1)
    counts[-1] += np.bincount(labels[is_false], minlength=num_classes + 1)
    return counts


def box_iou(boxes: Floats, others: Floats, *, is_crowd: Booleans | None = None) -> Floats:
    """Intersection over union of all pairs of boxes; for a crowd, intersection over the area of the first box.

    Args:
        boxes: First boxes, (D, 4), x_min, y_min, x_max, y_max.
        others: Second boxes, (G, 4), x_min, y_min, x_max, y_max.
        is_crowd: Whether each second box is a crowd, (G,).

    Returns:
        IoU in [0, 1], float64 (D, G).
    """
    first, second = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    intersection = np.where((sides > 0).all(axis=-1), sides.prod(axis=-1), 0.0)
    union = _compute_areas(first) + _compute_areas(second) - intersection
    if is_crowd is not None:
        union = np.where(is_crowd, _compute_areas(first), union)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _compute_areas(boxes: Floats) -> Floats:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def _mean(values: Floats) -> float | None:
    """Return the mean of the values that are not NaN, or None if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
