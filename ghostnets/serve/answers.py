"""What a network computes for the images of a batch, and the answer for each as JSON: classes, objects or a mask."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np

from ghostnets.artefacts import (
    LABEL_THRESHOLD,
    NONE_OF_THESE,
    Classifier,
    DetectedObjects,
    ObjectDetector,
    Segmenter,
    top_k,
)
from ghostnets.artefacts.masks import draw_indices
from ghostnets.preprocessing import FittedImage, Pixels, class_color

__all__ = [
    "Mask",
    "Ranking",
    "answer_with_classes",
    "answer_with_mask",
    "answer_with_objects",
    "detect",
    "rank",
    "segment",
]


class Ranking(NamedTuple):
    """The most probable classes of an image, most probable first.

    Attributes:
        classes: Indices of the classes.
        probabilities: Probabilities in the same order.
    """

    classes: list[int]
    probabilities: list[float]


class Mask(NamedTuple):
    """The class of each pixel of an image.

    Attributes:
        classes: Class index of each pixel of the upright image, uint8 (H, W).
        shares: Index of each class that occurs, and its share of the pixels, the largest first.
    """

    classes: Pixels
    shares: list[tuple[int, float]]


def rank(classifier: Classifier, images: list[Pixels], top: list[int]) -> list[Ranking]:
    """Return the most probable classes of each image, as many as ``top`` says for it."""
    classes, values = top_k(classifier.run(np.stack(images)).scores, max(top))
    return [
        Ranking(row[:count].tolist(), probabilities[:count].tolist())
        for row, probabilities, count in zip(classes, values, top, strict=True)
    ]


def detect(detector: ObjectDetector, images: list[FittedImage], top: list[int]) -> list[DetectedObjects]:
    """Return the objects in each image; ``answer_with_objects`` takes the first ``top`` of them."""
    return detector.detect(images, [""] * len(images))


def segment(segmenter: Segmenter, images: list[FittedImage], top: list[int]) -> list[Mask]:
    """Return the mask of each image; ``answer_with_mask`` takes the first ``top`` of its classes."""
    masks = []
    for image in images:  # one by one: logits of all classes at all pixels are large
        (found,) = segmenter.segment([image], [""])
        counts = np.bincount(found.mask.ravel(), minlength=len(found.class_names))
        order = np.argsort(-counts, kind="stable").tolist()
        shares = [(label, int(counts[label]) / found.mask.size) for label in order if counts[label]]
        masks.append(Mask(found.mask, shares))
    return masks


def answer_with_classes(
    ranking: Ranking | None, names: tuple[str, ...], *, top: int, threshold: float | None, multi_label: bool
) -> dict[str, Any]:
    """Return the fields of ``schemas.ImagePredictionInfo`` that follow from a ranking; None for an unreadable image.

    Args:
        ranking: At least ``top`` classes; all of them with several labels per image.
        names: Class names of the network.
        top: Number of classes of the answer.
        threshold: Lowest probability of an answer, or of each label; None without.
        multi_label: Whether an image has any number of classes.
    """
    threshold = LABEL_THRESHOLD if multi_label and threshold is None else threshold
    labels: list[str] | None = None
    answers: list[dict[str, Any]] = []
    if ranking is not None:
        answers = [{"class": names[i], "probability": p} for i, p in zip(*ranking, strict=True)]
        candidates = answers if multi_label else answers[:1]
        labels = [a["class"] for a in candidates if threshold is not None and a["probability"] >= threshold]
    answer = None if labels is None else "; ".join(labels) or NONE_OF_THESE
    return {
        **({} if threshold is None else {"answer": answer}),
        **({"labels": labels} if multi_label else {}),
        "answers": answers[:top],
    }


def answer_with_objects(found: DetectedObjects | None, *, top: int) -> dict[str, Any]:
    """Return the fields of ``schemas.ImageObjectsInfo`` that follow from objects; None for an unreadable image."""
    if found is None:
        return {"width": None, "height": None, "objects": []}
    rows = zip(found.classes, found.scores, found.boxes.tolist(), strict=True)
    objects = [{"class": name, "score": score, "box": box} for name, score, box in rows]
    return {"width": found.size[0], "height": found.size[1], "objects": objects[:top]}


def answer_with_mask(mask: Mask | None, names: tuple[str, ...], *, top: int) -> dict[str, Any]:
    """Return the fields of ``schemas.ImageMaskInfo`` that follow from a mask; None for an unreadable image."""
    if mask is None:
        return {"width": None, "height": None, "mask": None, "classes": []}
    classes = [
        {
            "class": names[index],
            "index": index,
            "share": share,
            "color": "#{:02x}{:02x}{:02x}".format(*class_color(index)),
        }
        for index, share in mask.shares[:top]
    ]
    content = io.BytesIO()
    draw_indices(mask.classes, len(names)).save(content, "PNG")
    height, width = mask.classes.shape
    return {"width": width, "height": height, "mask": base64.b64encode(content.getvalue()).decode(), "classes": classes}
