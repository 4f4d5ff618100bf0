"""The examples and tables of a segmentation network's report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ghostnets.data.masks import IGNORED
from ghostnets.explain.page import link_to_file
from ghostnets.explain.segmentation_report import ClassMasks, MaskExample
from ghostnets.measure import MaskScores
from ghostnets.preprocessing import class_color
from ghostnets.terminal import printable
from ghostnets.train.segmentation.evaluation import MaskResult

__all__ = ["collect_class_masks", "select_mask_examples"]

MAX_SIDE = 224  # pixels of each picture: image, labels, prediction
GAP = 4


class PicturesWithMasks(Protocol):
    """Images with their masks as last channel, uint8 (C + 1, H, W), and their names."""

    def name(self, index: int) -> str: ...

    def __getitem__(self, index: int) -> Tensor: ...


def collect_class_masks(evaluation: MaskScores, training_images: Sequence[int | None]) -> list[ClassMasks]:
    """Results by class, with the numbers of training images that have it, if they are known."""
    total = max(1, sum(row.pixels for row in evaluation.classes))
    rows = zip(evaluation.classes, training_images, evaluation.confusion.matrix.tolist(), strict=True)
    return [
        ClassMasks(
            row.name,
            "#{:02x}{:02x}{:02x}".format(*class_color(label)),
            images,
            row.pixels / total,
            row.iou,
            row.accuracy,
            [count / row.pixels for count in confusion] if row.pixels else None,
        )
        for label, (row, images, confusion) in enumerate(rows)
    ]


def select_mask_examples(
    worst: Iterable[MaskResult], best: Iterable[MaskResult], images: PicturesWithMasks, folder: Path
) -> dict[str, list[MaskExample]]:
    """The images with the lowest and with the highest mean intersection over union, without those that have none.

    Args:
        worst: Results on the images with the lowest overlap.
        best: Those with the highest; an image that is in both is shown here.
        images: The images with their masks, by the index of a result.
        folder: Folder of the page.
    """
    highest = [result for result in best if result.mean_iou is not None]
    shown = {result.index for result in highest}
    lowest = [result for result in worst if result.mean_iou is not None and result.index not in shown]

    def example(result: MaskResult) -> MaskExample:
        name = images.name(result.index)
        summary = f"mIoU {result.mean_iou:.1%}, {result.pixel_accuracy:.1%} of the pixels"
        return MaskExample(
            _draw(images[result.index], result.mask), summary, printable(name), link_to_file(name, folder)
        )

    return {
        "Lowest overlap": [example(result) for result in lowest],
        "Highest overlap": [example(result) for result in highest],
    }


def _draw(image: Tensor, predicted: Tensor) -> Tensor:
    """Image with mask, uint8 (C + 1, H, W), and predicted classes (H, W) -> image, labels and prediction in a row."""
    from torchvision.transforms import v2

    palette = torch.tensor([class_color(label) for label in range(IGNORED)] + [(255, 255, 255)], dtype=torch.uint8)
    factor = min(1.0, MAX_SIDE / max(predicted.shape))
    size = [max(1, round(side * factor)) for side in predicted.shape]
    small = v2.functional.resize(image[:-1], size, antialias=True)
    masks = torch.stack([image[-1], predicted])
    masks = v2.functional.resize(masks, size, interpolation=v2.InterpolationMode.NEAREST)
    pictures = [small, *(palette[mask.long()].permute(2, 0, 1) for mask in masks)]
    gap = torch.full((3, size[0], GAP), 255, dtype=torch.uint8)
    return torch.cat([pictures[0], gap, pictures[1], gap, pictures[2]], dim=2)
