"""How well a network does on labelled images."""

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
    """One class.

    Attributes:
        name: Of the class.
        images: Number of images that belong to it.
        recall: Share of them that are recognised.
        precision: Share of the answers "it is this class" that are right.
    """

    name: str
    images: int
    recall: float
    precision: float


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    images: Number of images.
    loss: Mean cross-entropy, without label smoothing.
    top1, top5: Share of images whose class is first, or among the first five (or all, of fewer classes).
    classes: One entry a class.
    confusion: Row: the true class; column: the answer; number of images.
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
    """Asks the network about every image; the network is left in evaluation mode.

    Args:
        model: uint8 images go through ``preprocessing`` into it; its outputs are (N, len(class_names)).
        images: Labels index ``class_names``.
        preprocessing: Of the network.
        class_names: In the order of the outputs.
        batch_size: Images at a time.
        distributed: The processes that share the images; all of them get the same result.

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    metrics = require("torchmetrics.classification", extra="train")
    distributed = distributed or DistributedContext()
    classes = len(class_names)
    confusion = metrics.MulticlassConfusionMatrix(classes, sync_on_compute=distributed.size > 1).to(distributed.device)
    top5 = metrics.MulticlassAccuracy(
        classes, top_k=min(5, classes), average="micro", sync_on_compute=distributed.size > 1
    ).to(distributed.device)
    model.eval()
    loss = 0.0
    for batch in evaluation_batches(
        images, preprocessing, batch_size=batch_size, part=distributed.rank, parts=distributed.size
    ):
        pixels, labels = batch.pixels.to(distributed.device), batch.labels.to(distributed.device)
        logits = model(preprocessing.normalize(pixels)).float()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        confusion.update(logits, labels)
        top5.update(logits, labels)
    (loss,) = distributed.sum([loss])
    matrix = confusion.compute()
    right, true, answered = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return Evaluation(
        images=len(images),
        loss=loss / len(images),
        top1=right.sum().item() / len(images),
        top5=top5.compute().item(),
        classes=tuple(
            ClassResult(
                name,
                int(true[i]),
                recall=right[i].item() / max(1, int(true[i])),
                precision=right[i].item() / max(1, int(answered[i])),
            )
            for i, name in enumerate(class_names)
        ),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
    )
