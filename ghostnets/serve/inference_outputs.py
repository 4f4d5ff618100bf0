"""Output tensors of the Open Inference Protocol: probabilities, or objects of a detector, or classes of pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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


def make_tensors(task: str, results: Sequence[Any], num_classes: int) -> dict[str, npt.NDArray[Any]]:
    """The values of all outputs.

    Args:
        task: Task of the network.
        results: Result of ``ServedModel.run`` for each image.
        num_classes: Number of classes of the network.

    Raises:
        RequestError: Masks have different sizes (400).
    """
    if task == "detect":
        return _stack_objects(results)
    if task == "segment":
        return {"classes": _stack_masks(results)}
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


def _stack_masks(masks: Sequence[Mask]) -> npt.NDArray[np.uint8]:
    height, width = masks[0].classes.shape
    if other := next((mask.classes.shape for mask in masks if mask.classes.shape != (height, width)), None):
        raise RequestError(
            400,
            f"the images have different sizes ({width} x {height} and {other[1]} x {other[0]}), and classes are one"
            " tensor; send images of one size, or use /v1/predict, which answers with a mask for each.",
        )
    return np.stack([mask.classes for mask in masks])
