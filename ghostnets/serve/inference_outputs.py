"""Output tensors of the Open Inference Protocol: probabilities, or objects of a detector, or classes of pixels."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets.artefacts import DetectedObjects
from ghostnets.artefacts.boxes import MAX_BOXES
from ghostnets.serve.answers import Mask, Ranking
from ghostnets.serve.inference_tensors import TensorSpec
from ghostnets.serve.request_error import RequestError

__all__ = ["PROBABILITIES", "list_outputs", "make_tensors"]

PROBABILITIES = "probabilities"
NO_LABEL = -1  # of the places behind the objects of an image


def list_outputs(task: str, num_classes: int) -> list[TensorSpec]:
    """The outputs of a network for a task: name, datatype, and shape with -1 for the images and sides of images."""
    if task == "detect":
        return [
            TensorSpec("boxes", "FP32", (-1, MAX_BOXES, 4)),
            TensorSpec("scores", "FP32", (-1, MAX_BOXES)),
            TensorSpec("labels", "INT32", (-1, MAX_BOXES)),
            TensorSpec("num_objects", "INT32", (-1,)),
        ]
    if task == "segment":
        return [TensorSpec("classes", "UINT8", (-1, -1, -1))]
    return [TensorSpec(PROBABILITIES, "FP32", (-1, num_classes))]


def make_tensors(
    task: str, results: Sequence[Any], num_classes: int, *, max_pixels: int
) -> dict[str, npt.NDArray[Any]]:
    """The values of all outputs.

    Args:
        task: Task of the network.
        results: Result of ``ServedModel.run`` for each image.
        num_classes: Number of classes of the network.
        max_pixels: Largest number of pixels of all masks.

    Raises:
        RequestError: Masks have different sizes (400) or too many pixels (413).
    """
    if task == "detect":
        return _stack_objects(results)
    if task == "segment":
        return {"classes": _stack_masks(results, max_pixels)}
    return {PROBABILITIES: _stack_probabilities(results, num_classes)}


def _stack_probabilities(rankings: Sequence[Ranking], num_classes: int) -> npt.NDArray[np.float32]:
    probabilities = np.zeros((len(rankings), num_classes), np.float32)
    for row, ranking in zip(probabilities, rankings, strict=True):
        row[ranking.classes] = ranking.probabilities
    return probabilities


def _stack_objects(found: Sequence[DetectedObjects]) -> dict[str, npt.NDArray[Any]]:
    boxes = np.zeros((len(found), MAX_BOXES, 4), np.float32)
    scores = np.zeros((len(found), MAX_BOXES), np.float32)
    labels = np.full((len(found), MAX_BOXES), NO_LABEL, np.int32)
    counts = np.array([len(one.labels) for one in found], np.int32)
    for index, (one, count) in enumerate(zip(found, counts, strict=True)):
        boxes[index, :count], scores[index, :count], labels[index, :count] = one.boxes, one.scores, one.labels
    return {"boxes": boxes, "scores": scores, "labels": labels, "num_objects": counts}


def _stack_masks(masks: Sequence[Mask], max_pixels: int) -> npt.NDArray[np.uint8]:
    width, height = masks[0].size
    if other := next((mask.size for mask in masks if mask.size != (width, height)), None):
        raise RequestError(
            400,
            f"the images have different sizes ({width} x {height} and {other[0]} x {other[1]}), and classes are one"
            " tensor; send images of one size, or use /v1/predict, which answers with a mask for each.",
        )
    if len(masks) * width * height > max_pixels:
        raise RequestError(
            413,
            f"the classes of {len(masks)} images have {len(masks) * width * height:,} pixels, the limit is"
            f" {max_pixels:,}; split the request.",
        )
    return np.stack([np.asarray(Image.open(io.BytesIO(mask.png))) for mask in masks])
