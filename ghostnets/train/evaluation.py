"""Evaluation of a classifier on labelled images."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.measure import average_precision, calibration_error, format_accuracy, roc_area, wilson_interval
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.hardware import free_memory, is_out_of_memory

__all__ = ["ClassResult", "CurveAreas", "Evaluation", "ImagePredictions", "evaluate", "time_validation"]

MAX_DENSE_CLASSES = 100  # the largest confusion matrix that is written out; its size grows with the square


@dataclass(frozen=True)
class ClassResult:
    """Results of one class.

    Attributes:
        name: Name of the class.
        images: Number of images of the class.
        predicted: Number of images predicted as the class.
        correct: Number of images of the class predicted as the class.
    """

    name: str
    images: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Share of the class's images predicted as the class; None if there are none."""
        return self.correct / self.images if self.images else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None if the class has neither images nor predictions."""
        total = self.images + self.predicted
        return 2 * self.correct / total if total else None

    @property
    def precision(self) -> float | None:
        """Share of the predictions of the class that are correct; None if there are none."""
        return self.correct / self.predicted if self.predicted else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "recall": self.recall, "precision": self.precision, "f1": self.f1}


@dataclass(frozen=True)
class ImagePredictions:
    """Results of each image; all tensors have the length and the order of the images.

    Attributes:
        labels: Index of the true class, int64 (N,).
        predictions: Index of the most probable class, int64 (N,).
        probabilities: Probability of ``predictions``, float64 (N,).
        losses: Cross-entropy, without label smoothing, float64 (N,).
        in_top5: Whether the true class has one of the five highest scores, bool (N,).
        logits: Logits, float32 (N, classes), or None where they were not requested; those of an exported file that
            returns probabilities are their logarithms.
    """

    labels: Tensor
    predictions: Tensor
    probabilities: Tensor
    losses: Tensor
    in_top5: Tensor
    logits: Tensor | None = None

    def describe(self, index: int, class_names: Sequence[str]) -> tuple[str, str]:
        """Names of the true and of the predicted class of an image."""
        return class_names[int(self.labels[index])], class_names[int(self.predictions[index])]

    @property
    def correct(self) -> Tensor:
        """Whether each prediction is the true class, bool (N,)."""
        return self.labels == self.predictions

    def mistakes(self) -> Tensor:
        """Indices of the wrong predictions, the most probable first, int64."""
        wrong = (~self.correct).nonzero().flatten()
        return wrong[self.probabilities[wrong].argsort(descending=True, stable=True)]

    def highest_losses(self) -> Tensor:
        """Indices of all images, the highest loss first, int64."""
        return self.losses.argsort(descending=True, stable=True)


class CurveAreas(NamedTuple):
    """Areas under the curves of each class against all others.

    Attributes:
        roc: Area under the ROC curve; None for a class without images, or with all of them.
        precision_recall: Average precision; None for a class without images.
    """

    roc: tuple[float | None, ...]
    precision_recall: tuple[float | None, ...]

    @staticmethod
    def mean(values: Sequence[float | None]) -> float | None:
        """Mean over the classes that have a value (macro average); None if none has."""
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Evaluation:
    """Results on a set of images.

    Attributes:
        images: Number of images.
        loss: Mean cross-entropy, without label smoothing.
        top1, top5: Share of images whose class has the highest score, or one of the five highest (of all, if there are
            fewer classes).
        classes: One entry per class.
        confusion_cells: True class, predicted class and number of images, for each pair of classes that occurs.
        predictions: Results of each image.
    """

    images: int
    loss: float
    top1: float
    top5: float
    classes: tuple[ClassResult, ...]
    confusion_cells: tuple[tuple[int, int, int], ...]
    predictions: ImagePredictions = field(repr=False, compare=False)

    multi_label = False
    kind = "classes"

    @property
    def scores(self) -> dict[str, float]:
        """Metrics that are recorded for each epoch."""
        return {"top1": self.top1}

    @property
    def correct(self) -> int:
        """Number of images whose class has the highest score."""
        return round(self.top1 * self.images)

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1, over those with images or predictions."""
        values = [row.f1 for row in self.classes if row.f1 is not None]
        return sum(values) / len(values)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the predicted classes' probabilities."""
        rows = self.predictions
        return calibration_error(rows.probabilities.numpy(), rows.correct.numpy())

    @cached_property
    def curve_areas(self) -> CurveAreas | None:
        """Areas under the curves of each class; None if the logits were not kept."""
        rows = self.predictions
        if rows.logits is None:
            return None
        probabilities, labels = rows.logits.softmax(1).numpy(), rows.labels.numpy()
        columns = [(probabilities[:, index], labels == index) for index in range(len(self.classes))]
        return CurveAreas(
            tuple(roc_area(*column) for column in columns), tuple(average_precision(*column) for column in columns)
        )

    @property
    def largest_class(self) -> ClassResult:
        """The class with most images. Predicting it always is the baseline of the accuracy."""
        return max(self.classes, key=lambda row: row.images)

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Number of images by true class (rows) and predicted class (columns)."""
        matrix = [[0] * len(self.classes) for _ in self.classes]
        for true, predicted, count in self.confusion_cells:
            matrix[true][predicted] = count
        return tuple(map(tuple, matrix))

    @property
    def mistakes(self) -> list[tuple[int, int, int]]:
        """The cells off the diagonal, most images first."""
        return sorted((c for c in self.confusion_cells if c[0] != c[1]), key=lambda c: (-c[2], c))

    def headline(self) -> dict[str, str]:
        """Return the accuracies, formatted with their 95 % intervals: name -> value; top-5 for over five classes."""
        return {"top-1": self.format_top1(), **({"top-5": self.format_top5()} if len(self.classes) > 5 else {})}

    def format_top1(self) -> str:
        """Top-1 accuracy with its 95 % interval."""
        return format_accuracy(self.correct, self.images)

    def format_top5(self) -> str:
        """Top-5 accuracy with its 95 % interval."""
        return format_accuracy(round(self.top5 * self.images), self.images)

    def describe_baseline(self) -> str:
        """Describe in a sentence the accuracy of always predicting the largest class, compared with the network's."""
        largest, (low, _) = self.largest_class, wilson_interval(self.correct, self.images)
        share = largest.images / self.images
        sentence = f"Always predicting {largest.name}, the largest class, would be correct for {share:.1%}"
        if self.correct <= largest.images:
            return f"{sentence}: the network is not better."
        return (
            f"{sentence}, which is within the interval: more images are needed for a conclusion."
            if share >= low
            else f"{sentence}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the results of single images, as JSON values.

        ``confusion`` is null above ``MAX_DENSE_CLASSES``; ``confusion_cells`` then has the cells that are not zero.
        """
        in_top5 = round(self.top5 * self.images)
        is_dense = len(self.classes) <= MAX_DENSE_CLASSES
        return {
            "images": self.images,
            "loss": self.loss,
            "top1": self.top1,
            "top1_interval": wilson_interval(self.correct, self.images),
            "top5": self.top5,
            "top5_interval": wilson_interval(in_top5, self.images),
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "baseline": {"class": self.largest_class.name, "top1": self.largest_class.images / self.images},
            "classes": [row.to_dict() for row in self.classes],
            "confusion": self.confusion if is_dense else None,
            **({} if is_dense else {"confusion_cells": self.confusion_cells}),
        }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    class_names: tuple[str, ...],
    *,
    batch_size: int = 64,
    keep_logits: bool = False,
    distributed: DistributedContext | None = None,
) -> Evaluation:
    """Evaluate a classifier; the model is left in evaluation mode.

    Args:
        model: Preprocessed images -> logits (N, len(class_names)).
        images: Images whose labels index ``class_names``.
        preprocessing: Preprocessing of the model.
        class_names: Names in the order of the logits.
        batch_size: Images per batch; halved as often as the device runs out of memory.
        keep_logits: Keep the logits of each image, for areas and calibration; in one process.
        distributed: Processes that divide the images among them; all get the same result.
    """
    distributed = distributed or DistributedContext()
    kept = torch.zeros(len(images), len(class_names)) if keep_logits else None
    while (rows := _evaluate_images(model, images, preprocessing, batch_size, distributed, kept)) is None:
        free_memory(distributed.device)
        batch_size //= 2
    if distributed.world_size > 1:  # each process has filled its own rows
        rows = torch.tensor(distributed.sum(rows.flatten().tolist()), dtype=torch.float64).view(-1, 4)
    predicted, probabilities, losses, in_top5 = rows.unbind(1)
    return summarize(
        ImagePredictions(images.labels, predicted.long(), probabilities, losses, in_top5.bool(), kept), class_names
    )


def _evaluate_images(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    batch_size: int,
    distributed: DistributedContext,
    kept: Tensor | None,
) -> Tensor | None:
    """Return prediction, probability, loss and top-5 correctness of each image of this process.

    Returns:
        float64 (N, 4), with zeros for the images of other processes; None if memory suffices for smaller batches only.
    """
    model.eval()
    rows = torch.zeros(len(images), 4, dtype=torch.float64)
    try:
        for batch in evaluation_batches(
            images, preprocessing, batch_size=batch_size, rank=distributed.rank, world_size=distributed.world_size
        ):
            pixels, labels = batch.pixels.to(distributed.device), batch.labels.to(distributed.device)
            logits = model(preprocessing.normalize(pixels)).float()
            predictions = logits.argmax(1)
            five = logits.topk(min(5, logits.shape[1])).indices
            columns = [
                predictions,
                logits.softmax(1).gather(1, predictions[:, None])[:, 0],
                F.cross_entropy(logits, labels, reduction="none"),
                (five == labels[:, None]).any(1),
            ]
            if kept is not None:
                kept[batch.indices] = logits.cpu()
            rows[batch.indices] = torch.stack([column.cpu().double() for column in columns], 1)
    except RuntimeError as error:
        if batch_size == 1 or not is_out_of_memory(error):
            raise
        return None
    return rows


@torch.inference_mode()
def time_validation(
    model: nn.Module, images: ImageDataset, preprocessing: Preprocessing | IdentityPreprocessing, device: torch.device
) -> float:
    """Estimate the seconds that ``evaluate`` takes in one process, from a first batch; sets evaluation mode as well."""
    model.eval()
    before = time.perf_counter()
    batch = next(evaluation_batches(images, preprocessing, batch_size=16))
    channels = preprocessing.channels if isinstance(preprocessing, Preprocessing) else batch.pixels.shape[1]
    inputs = batch.pixels[:, :channels].to(device)  # a mask is one more channel
    model(preprocessing.normalize(inputs)).sum().item()
    return (time.perf_counter() - before) * len(images) / len(batch.labels)


def summarize(predictions: ImagePredictions, class_names: Sequence[str]) -> Evaluation:
    """Compute the results on a set of images, at least one, from those of each image."""
    classes, labels = len(class_names), predictions.labels
    pairs, counts = (labels * classes + predictions.predictions).unique(return_counts=True)
    images = labels.bincount(minlength=classes).tolist()
    predicted = predictions.predictions.bincount(minlength=classes).tolist()
    correct = labels[predictions.correct].bincount(minlength=classes).tolist()
    return Evaluation(
        images=len(labels),
        loss=predictions.losses.mean().item(),
        top1=sum(correct) / len(labels),
        top5=predictions.in_top5.sum().item() / len(labels),
        classes=tuple(map(ClassResult, class_names, images, predicted, correct)),
        confusion_cells=tuple(
            (pair // classes, pair % classes, count)
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        ),
        predictions=predictions,
    )
