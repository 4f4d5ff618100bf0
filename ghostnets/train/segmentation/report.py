"""The examples and tables of a segmentation network's report."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from ghostnets.data import ImageDataset
from ghostnets.explain.page import link_to_file
from ghostnets.explain.segmentation_report import ClassMasks, MaskExample
from ghostnets.preprocessing import class_color
from ghostnets.terminal import printable
from ghostnets.train.segmentation.evaluation import MaskEvaluation, MaskResult
from ghostnets.train.segmentation.losses import IGNORED

__all__ = ["collect_class_masks", "select_mask_examples"]

MAX_SIDE = 224  # pixels of each picture: image, labels, prediction
GAP = 4


def collect_class_masks(evaluation: MaskEvaluation, training_images: Sequence[int]) -> list[ClassMasks]:
    """Results by class, with the numbers of training images that have it."""
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
    evaluation: MaskEvaluation, images: ImageDataset, folder: Path
) -> dict[str, list[MaskExample]]:
    """The images with the lowest and with the highest mean intersection over union."""
    best = [result for result in evaluation.best if result.mean_iou is not None]
    shown = {result.index for result in best}
    worst = [result for result in evaluation.worst if result.mean_iou is not None and result.index not in shown]

    def example(result: MaskResult) -> MaskExample:
        name = images.name(result.index)
        summary = f"mIoU {result.mean_iou:.1%}, {result.pixel_accuracy:.1%} of the pixels"
        return MaskExample(
            _draw(images[result.index], result.mask), summary, printable(name), link_to_file(name, folder)
        )

    return {
        "Lowest overlap": [example(result) for result in worst],
        "Highest overlap": [example(result) for result in best],
    }


def _draw(image: Tensor, predicted: Tensor) -> Tensor:
    """Image with mask, uint8 (C + 1, S, S), and predicted classes -> image, labels and prediction side by side."""
    palette = torch.tensor([class_color(label) for label in range(IGNORED)] + [(255, 255, 255)], dtype=torch.uint8)
    side = min(MAX_SIDE, image.shape[-1])
    small = v2.functional.resize(image[:-1], [side, side], antialias=True)
    masks = torch.stack([image[-1], predicted])
    masks = v2.functional.resize(masks, [side, side], interpolation=v2.InterpolationMode.NEAREST)
    pictures = [small, *(palette[mask.long()].permute(2, 0, 1) for mask in masks)]
    gap = torch.full((3, side, GAP), 255, dtype=torch.uint8)
    return torch.cat([pictures[0], gap, pictures[1], gap, pictures[2]], dim=2)
