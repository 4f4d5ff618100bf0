"""Evaluation of a classifier on labelled images."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.errors import require
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.frozen import IdentityPreprocessing

__all__ = ["ClassResult", "Evaluation", "evaluate"]


@dataclass(frozen=True)
class ClassResult:
    """Results of one class.

    Attributes:
        name: Name of the class.
        images: Number of images of the class.
        recall: Share of these images predicted as the class.
        precision: Share of the predictions of the class that are correct.
    """

    name: str
    images: int
    recall: float
    precision: float


@dataclass(frozen=True)
class Evaluation:
    """Results on a set of images.

    Attributes:
        images: Number of images.
        loss: Mean cross-entropy, without label smoothing.
        top1, top5: Share of images whose class has the highest score, or one of the five highest (of all, if there are
            fewer classes).
        classes: One entry per class.
        confusion: Number of images by true class (rows) and predicted class (columns).
    """

    images: int
    loss: float
    top1: float
    top5: float
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    class_names: tuple[str, ...],
    *,
    batch_size: int = 64,
    distributed: DistributedContext | None = None,
) -> Evaluation:
    """Evaluate a classifier; the model is left in evaluation mode.

    Args:
        model: Preprocessed images -> logits (N, len(class_names)).
        images: Images whose labels index ``class_names``.
        preprocessing: Preprocessing of the model.
        class_names: Names in the order of the logits.
        batch_size: Images per batch.
        distributed: Processes that divide the images among them; all get the same result.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    metrics = require("torchmetrics.classification", extra="train")
    distributed = distributed or DistributedContext()
    classes, is_shared = len(class_names), distributed.world_size > 1
    confusion = metrics.MulticlassConfusionMatrix(classes, sync_on_compute=is_shared).to(distributed.device)
    top5 = metrics.MulticlassAccuracy(classes, top_k=min(5, classes), average="micro", sync_on_compute=is_shared).to(
        distributed.device
    )
    model.eval()
    loss = 0.0
    for batch in evaluation_batches(
        images, preprocessing, batch_size=batch_size, rank=distributed.rank, world_size=distributed.world_size
    ):
        pixels, labels = batch.pixels.to(distributed.device), batch.labels.to(distributed.device)
        logits = model(preprocessing.normalize(pixels)).float()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        confusion.update(logits, labels)
        top5.update(logits, labels)
    (loss,) = distributed.sum([loss])
    matrix = confusion.compute()
    correct, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return Evaluation(
        images=len(images),
        loss=loss / len(images),
        top1=correct.sum().item() / len(images),
        top5=top5.compute().item(),
        classes=tuple(
            ClassResult(
                name,
                int(true[i]),
                recall=correct[i].item() / max(1, int(true[i])),
                precision=correct[i].item() / max(1, int(predicted[i])),
            )
            for i, name in enumerate(class_names)
        ),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
    )
