"""Multi-label classification: independent sigmoid probabilities, any number of classes per image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.errors import ConfigurationError
from ghostnets.measure import average_precision, calibration_error, format_accuracy, roc_area, wilson_interval
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.evaluation import ClassResult, CurveAreas
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.hardware import free_memory, is_out_of_memory
from ghostnets.train.recipe import Recipe

__all__ = [
    "LabelSetPredictions",
    "MultiLabelEvaluation",
    "check_multi_label",
    "count_exact",
    "evaluate_multi_label",
    "multi_label_losses",
    "summarize_label_sets",
]


NO_LABEL = "no label"


def check_multi_label(recipe: Recipe) -> None:
    """Raise ConfigurationError if a recipe needs one class per image."""
    needs = {
        "--class-balanced": recipe.class_balanced,
        "--class-weights": recipe.class_weights != "none",
        "--teacher": recipe.teacher is not None,
    }
    if wrong := [option for option, is_set in needs.items() if is_set]:
        raise ConfigurationError(
            f"the images have several labels, and {' and '.join(wrong)} {'needs' if len(wrong) == 1 else 'need'} one"
            " class per image; omit it, or train from data with one label per image."
        )


def multi_label_losses(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood of the labels of each image: binary cross-entropy, summed over the classes.

    The sum, not the mean, has the gradient of cross-entropy in each logit, probability minus target, so the learning
    rates of a recipe mean the same for one and for several labels.

    Args:
        logits: (N, classes).
        targets: (N, classes), in [0, 1].
        label_smoothing: Share of each target that is replaced by 1/2.

    Returns:
        (N,), in nats.
    """
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)


def count_exact(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of images all of whose labels are predicted, and no others; a mixed label counts above one half."""
    return ((logits > 0) == (targets > 0.5)).all(1).sum()


@dataclass(frozen=True)
class LabelSetPredictions:
    """Results of each image, in the order of the images.

    Attributes:
        labels: Classes of each image, bool (N, classes).
        logits: float32 (N, classes).
        losses: Negative log-likelihood of the labels, as of ``multi_label_losses``, float64 (N,).
    """

    labels: Tensor
    logits: Tensor
    losses: Tensor

    @property
    def predictions(self) -> Tensor:
        """Classes with a probability above 0.5, bool (N, classes)."""
        return self.logits > 0

    def describe(self, index: int, class_names: Sequence[str]) -> tuple[str, str]:
        """Names of the true and of the predicted classes of an image."""
        rows = self.labels[index].nonzero().flatten(), self.predictions[index].nonzero().flatten()
        true, predicted = ("; ".join(class_names[i] for i in row.tolist()) or NO_LABEL for row in rows)
        return true, predicted

    @property
    def correct(self) -> Tensor:
        """Whether the predicted classes are those of the image, bool (N,)."""
        return (self.labels == self.predictions).all(1)

    @property
    def probabilities(self) -> Tensor:
        """Probability of the predicted set of classes: the product over the classes, float64 (N,)."""
        return self.logits.double().abs().sigmoid().prod(1)

    def mistakes(self) -> Tensor:
        """Indices of the images with a wrong or missing label, the highest loss first, int64."""
        order = self.highest_losses()
        return order[~self.correct[order]]

    def highest_losses(self) -> Tensor:
        """Indices of all images, the highest loss first, int64."""
        return self.losses.argsort(descending=True, stable=True)


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """Results on a set of images with any number of classes each.

    Attributes:
        images: Number of images.
        loss: Mean negative log-likelihood of the labels of an image, without label smoothing.
        classes: One entry per class; a class is predicted where its probability is above 0.5.
        predictions: Results of each image.
    """

    images: int
    loss: float
    classes: tuple[ClassResult, ...]
    predictions: LabelSetPredictions = field(repr=False, compare=False)

    multi_label = True
    kind = "labels"
    confusion_cells: ClassVar[tuple[tuple[int, int, int], ...]] = ()  # several labels have no confusion matrix

    @cached_property
    def curve_areas(self) -> CurveAreas:
        """Areas under the curves of each class."""
        logits, labels = self.predictions.logits.numpy(), self.predictions.labels.numpy()
        columns = [(logits[:, index], labels[:, index]) for index in range(len(self.classes))]
        return CurveAreas(
            tuple(roc_area(*column) for column in columns), tuple(average_precision(*column) for column in columns)
        )

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precision of the classes that have images; 0 if none has."""
        return CurveAreas.mean(self.curve_areas.precision_recall) or 0.0

    @property
    def micro_f1(self) -> float:
        """F1 over all pairs of image and class; 0 without labels and predictions."""
        total = sum(row.images + row.predicted for row in self.classes)
        return 2 * sum(row.correct for row in self.classes) / max(1, total)

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1, over those with images or predictions; 0 if none has."""
        values = [row.f1 for row in self.classes if row.f1 is not None]
        return sum(values) / max(1, len(values))

    @property
    def correct(self) -> int:
        """Number of images all of whose labels are predicted, and no others."""
        return int(self.predictions.correct.sum())

    @property
    def exact_match(self) -> float:
        """Share of images all of whose labels are predicted, and no others."""
        return self.correct / self.images

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the decisions on all pairs of image and class."""
        rows = self.predictions
        confidences, is_correct = rows.logits.double().abs().sigmoid(), rows.labels == rows.predictions
        return calibration_error(confidences.flatten().numpy(), is_correct.flatten().numpy())

    @property
    def scores(self) -> dict[str, float]:
        """Metrics that are recorded for each epoch."""
        return {
            "exact": self.exact_match,
            "map": self.mean_average_precision,
            "f1_micro": self.micro_f1,
            "f1_macro": self.macro_f1,
        }

    def headline(self) -> dict[str, str]:
        """Return the main metrics, formatted: name -> value; the share with all labels correct has a 95 % interval."""
        return {
            "mean average precision": f"{self.mean_average_precision:.1%}",
            "F1 micro": f"{self.micro_f1:.1%}",
            "F1 macro": f"{self.macro_f1:.1%}",
            "all labels correct": format_accuracy(self.correct, self.images),
        }

    def describe_baseline(self) -> str:
        """Describe in a sentence the score of a random ranking."""
        shares = [row.images / self.images for row in self.classes if row.images]
        mean = sum(shares) / max(1, len(shares))
        return f"A random ranking has a mean average precision of about {mean:.1%}, the mean share of the classes."

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the results of single images, as JSON values."""
        areas = self.curve_areas
        return {
            "images": self.images,
            "loss": self.loss,
            "mean_average_precision": self.mean_average_precision,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "exact_match": self.exact_match,
            "exact_match_interval": wilson_interval(self.correct, self.images),
            "calibration_error": self.calibration_error,
            "classes": [
                {**row.to_dict(), "roc_area": roc, "average_precision": precision}
                for row, roc, precision in zip(self.classes, areas.roc, areas.precision_recall, strict=True)
            ],
        }


@torch.inference_mode()
def evaluate_multi_label(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    class_names: tuple[str, ...],
    *,
    batch_size: int = 64,
    distributed: DistributedContext | None = None,
) -> MultiLabelEvaluation:
    """Evaluate a multi-label classifier; the model is left in evaluation mode.

    Args:
        model: Preprocessed images -> logits (N, len(class_names)).
        images: Multi-label images, with classes in the order of ``class_names``.
        preprocessing: Preprocessing of the model.
        class_names: Names in the order of the logits.
        batch_size: Images per batch; halved as often as the device runs out of memory.
        distributed: Processes that divide the images among them; all get the same result.
    """
    distributed = distributed or DistributedContext()
    shape = len(images), len(class_names)
    while (logits := _predict(model, images, preprocessing, batch_size, distributed, shape)) is None:
        free_memory(distributed.device)
        batch_size //= 2
    if distributed.world_size > 1:  # each process has filled its own rows
        logits = torch.tensor(distributed.sum(logits.flatten().tolist())).view(shape)
    return summarize_label_sets(images.labels, logits, class_names)


def _predict(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    batch_size: int,
    distributed: DistributedContext,
    shape: tuple[int, int],
) -> Tensor | None:
    """Logits of the images of this process, with zeros for others; None if memory suffices for smaller batches only."""
    model.eval()
    logits = torch.zeros(shape)
    try:
        for batch in evaluation_batches(
            images, preprocessing, batch_size=batch_size, rank=distributed.rank, world_size=distributed.world_size
        ):
            inputs = preprocessing.normalize(batch.pixels.to(distributed.device))
            logits[batch.indices] = model(inputs).float().cpu()
    except RuntimeError as error:
        if batch_size == 1 or not is_out_of_memory(error):
            raise
        return None
    return logits


def summarize_label_sets(labels: Tensor, logits: Tensor, class_names: Sequence[str]) -> MultiLabelEvaluation:
    """Compute the results on a set of images, at least one.

    Args:
        labels: (N, classes), 1 or True for each class of an image.
        logits: float32 (N, classes).
        class_names: Names of the classes.
    """
    losses, is_label, is_predicted = multi_label_losses(logits.double(), labels.double()), labels.bool(), logits > 0
    counts = [is_label, is_predicted, is_label & is_predicted]
    images, predicted, correct = (count.sum(0).tolist() for count in counts)
    return MultiLabelEvaluation(
        images=len(labels),
        loss=losses.mean().item(),
        classes=tuple(map(ClassResult, class_names, images, predicted, correct)),
        predictions=LabelSetPredictions(is_label, logits, losses),
    )
