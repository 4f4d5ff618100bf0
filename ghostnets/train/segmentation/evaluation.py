"""Evaluation of a segmentation network: pixel accuracy, intersection over union, and examples of masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.data import ImageDataset, evaluation_batches
from ghostnets.measure import MaskScores, PixelConfusion
from ghostnets.models.segmentation import SegmentationNetwork
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.segmentation.losses import segmentation_losses

__all__ = ["MaskEvaluation", "MaskResult", "evaluate_masks"]

KEPT = 9  # masks kept of the images with the highest, and of those with the lowest intersection over union


@dataclass(frozen=True)
class MaskResult:
    """Result on one image.

    Attributes:
        index: Index of the image.
        mean_iou: Mean intersection over union of the classes in the image; None without a labelled pixel.
        pixel_accuracy: Share of the labelled pixels whose class is predicted; None without any.
        mask: Predicted class of each pixel, uint8 (S, S).
    """

    index: int
    mean_iou: float | None
    pixel_accuracy: float | None
    mask: Tensor


@dataclass(frozen=True)
class MaskEvaluation(MaskScores):
    """Results of a segmentation network on a set of images, at the size of its input, with those of some images.

    Attributes:
        loss: Mean cross-entropy of an image (``segmentation_losses``).
        best, worst: Results on the images with the highest and the lowest mean intersection over union, the most
            extreme first.
    """

    loss: float
    best: tuple[MaskResult, ...] = field(repr=False, compare=False)
    worst: tuple[MaskResult, ...] = field(repr=False, compare=False)

    kind = "masks"
    multi_label = False

    @property
    def scores(self) -> dict[str, float]:
        """The figures that are compared from epoch to epoch; 0 where no pixel is labelled."""
        return {"miou": self.confusion.mean_iou or 0.0, "pixel_accuracy": self.confusion.pixel_accuracy or 0.0}

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the results of single images, as JSON values."""
        return {"images": self.images, "loss": self.loss, **super().to_dict()}


@torch.inference_mode()
def evaluate_masks(
    network: SegmentationNetwork,
    images: ImageDataset,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    batch_size: int = 8,
    distributed: DistributedContext | None = None,
) -> MaskEvaluation:
    """Evaluate a segmentation network at the size of its input; it is left in evaluation mode.

    Args:
        network: The network.
        images: Images with masks as ``MaskFolder`` reads them for evaluation.
        preprocessing: Preprocessing of the network.
        class_names: Names in the order of the labels.
        batch_size: Images per batch.
        distributed: Processes that divide the images among them; all get the same result.
    """
    distributed = distributed or DistributedContext()
    network.eval()
    device, classes = next(network.parameters()).device, len(class_names)
    none = PixelConfusion(np.zeros((classes, classes), np.int64))
    confusion, loss = none, 0.0
    best: list[MaskResult] = []
    worst: list[MaskResult] = []
    for batch in evaluation_batches(
        images, preprocessing, batch_size=batch_size, rank=distributed.rank, world_size=distributed.world_size
    ):
        pixels, masks = batch.pixels[:, :-1], batch.pixels[:, -1]
        logits = network(preprocessing.normalize(pixels.to(device))).float().cpu()
        loss += float(segmentation_losses(logits, masks).double().sum())
        results = []
        for index, truth, mask in zip(batch.indices.tolist(), masks, logits.argmax(1).byte(), strict=True):
            own = PixelConfusion.count(truth.numpy(), mask.numpy(), classes)
            confusion += own
            results.append(MaskResult(index, own.mean_iou, own.pixel_accuracy, mask))
        best, worst = _find_best(best + results), _find_worst(worst + results)
    (loss,) = distributed.sum([loss])
    return MaskEvaluation(
        images=len(images),
        confusion=sum(distributed.gather([confusion]), start=none),
        class_names=tuple(class_names),
        loss=loss / len(images),
        best=tuple(_find_best(distributed.gather(best))),
        worst=tuple(_find_worst(distributed.gather(worst))),
    )


def _find_best(results: list[MaskResult]) -> list[MaskResult]:
    return sorted(results, key=lambda result: (-_rank(result)[0], result.index))[:KEPT]


def _find_worst(results: list[MaskResult]) -> list[MaskResult]:
    return sorted(results, key=_rank)[:KEPT]


def _rank(result: MaskResult) -> tuple[float, int]:
    """Order of results; images without labels are in the middle."""
    return (0.5 if result.mean_iou is None else result.mean_iou, result.index)
