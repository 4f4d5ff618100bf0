"""Output of ``ghostnets eval`` of a segmentation network: by class and by image, as JSON, on the console, as a page."""

import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import Tensor

from ghostnets.artefacts import Segmenter
from ghostnets.cli.eval_labels import tell_training_images
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import result_console
from ghostnets.data.masks import MaskPair
from ghostnets.explain import DataSummary
from ghostnets.explain.segmentation_report import SegmentationReport, write_segmentation_report
from ghostnets.measure import MaskScores
from ghostnets.preprocessing import decode
from ghostnets.terminal import format_count, printable
from ghostnets.train.segmentation.evaluation import KEPT, MaskResult
from ghostnets.train.segmentation.report import collect_class_masks, select_mask_examples

__all__ = ["MaskRow", "columns_of", "print_masks", "to_json", "write_masks_page"]

MAX_CLASSES = 50  # in the table of the console
MAX_LINES = 5  # images, and pairs of classes, named on the console


class MaskRow(NamedTuple):
    """Result on one image.

    Attributes:
        pair: The image and its mask.
        mean_iou: Mean intersection over union of the classes in the image; None without a labelled pixel.
        pixel_accuracy: Share of the labelled pixels whose class is predicted; None without any.
        labelled_pixels: Number of labelled pixels.
    """

    pair: MaskPair
    mean_iou: float | None
    pixel_accuracy: float | None
    labelled_pixels: int


def columns_of(rows: Sequence[MaskRow]) -> dict[str, list[Any]]:
    """Results of the images, by column."""
    return {
        "path": [printable(str(row.pair.image)) for row in rows],
        "mean_iou": [row.mean_iou for row in rows],
        "pixel_accuracy": [row.pixel_accuracy for row in rows],
        "labelled_pixels": [row.labelled_pixels for row in rows],
    }


def _by_overlap(rows: Sequence[MaskRow]) -> list[int]:
    """Indices of the images with labelled pixels, those with the lowest mean intersection over union first."""
    ious = [row.mean_iou for row in rows]
    order = [(iou, index) for index, iou in enumerate(ious) if iou is not None]
    return [index for _, index in sorted(order)]


def to_json(scores: MaskScores, rows: Sequence[MaskRow], in_training: npt.NDArray[np.bool_] | None) -> dict[str, Any]:
    """Everything, ready for JSON; the images with the lowest overlap first."""
    columns, order = columns_of(rows), _by_overlap(rows)
    return {
        **scores.to_dict(),
        "training_images": None if in_training is None else {"images": int(in_training.sum())},
        "lowest_overlap": [{name: values[index] for name, values in columns.items()} for index in order],
    }


def print_masks(
    scores: MaskScores, rows: Sequence[MaskRow], split: str, in_training: npt.NDArray[np.bool_] | None
) -> None:
    """Print the classes, the most confused ones, the images with the lowest overlap, and the figures of all pixels."""
    console = result_console()
    console.print(_class_table(scores))
    if len(scores.classes) > MAX_CLASSES:
        console.print(
            f"the {MAX_CLASSES} of {len(scores.classes)} classes with the lowest overlap; all of them: --json"
        )
    for true, predicted, pixels in scores.most_confused()[:MAX_LINES]:
        truth, prediction = scores.classes[true], scores.class_names[predicted]
        share = pixels / truth.pixels
        console.print(f"{share:.1%} of the pixels of {truth.name} predicted as {prediction}", soft_wrap=True)
    for index in _by_overlap(rows)[:MAX_LINES]:
        row = rows[index]
        name = printable(str(row.pair.image))
        console.print(f"{name}: mIoU {row.mean_iou:.1%}, pixel accuracy {row.pixel_accuracy:.1%}", soft_wrap=True)
    headline = "   ".join(f"{label} {value}" for label, value in scores.headline().items())
    console.print(f"{format_count(scores.images, 'image')} ({split})   {headline}", soft_wrap=True)
    console.print(scores.describe_baseline(), soft_wrap=True)
    tell_training_images(in_training)


def _class_table(scores: MaskScores) -> Table:
    table = Table("no.", "class", "share of pixels", "IoU", "recall", title=None)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    rows = list(enumerate(scores.classes, 1))
    total = max(1, sum(row.pixels for row in scores.classes))
    if len(rows) > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: 2.0 if row[1].iou is None else row[1].iou)[:MAX_CLASSES]
    for number, row in rows:
        figures = ["no pixel" if value is None else f"{value:.1%}" for value in (row.iou, row.accuracy)]
        table.add_row(str(number), row.name, f"{row.pixels / total:.1%}", *figures)
    return table


def write_masks_page(
    command: EvalCommand,
    scores: MaskScores,
    rows: Sequence[MaskRow],
    *,
    title: str,
    split: str,
    summary: dict[str, Any],
    segmenter: Segmenter,
    read_mask: Callable[[MaskPair], npt.NDArray[np.uint8]],
) -> None:
    """Write the page of ``--page``, as the report of a training run shows its evaluation.

    The images with the lowest and the highest overlap are segmented again, so that no other mask is kept.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    assert command.page is not None
    order = _by_overlap(rows)
    best = order[::-1][:KEPT]
    worst = [index for index in order[:KEPT] if index not in best]

    def result(index: int) -> MaskResult:
        row = rows[index]
        mask = segmenter(row.pair.image).mask
        return MaskResult(index, row.mean_iou, row.pixel_accuracy, torch.from_numpy(mask))

    pictures = _MaskedPictures([row.pair for row in rows], read_mask, command.max_pixels)
    options = ["--page", str(command.page), *(["--part", command.split] if command.split != "auto" else [])]
    options += ["--tta", command.tta] if segmenter.flip else []
    report = SegmentationReport(
        title=title,
        summary=f"{format_count(len(scores.classes), 'class')}. Measured on {format_count(scores.images, 'image')}"
        f" ({split}), with the masks that predict writes, at the size of the images.",
        warnings=[scores.describe_baseline()],
        figures=scores.headline(),
        classes=collect_class_masks(scores, [None] * len(scores.classes)),
        data=DataSummary(summary["splits"], summary["notes"], summary["images"]),
        examples=select_mask_examples(map(result, worst), map(result, best), pictures, command.page.parent),
        examples_note="The images with the lowest and with the highest overlap.",
        settings={},
        command=shlex.join(["ghostnets", "eval", str(command.network), command.data, *options]),
    )
    write_segmentation_report(command.page, report)


class _MaskedPictures:
    """The images with their masks, read when they are shown."""

    def __init__(
        self, pairs: Sequence[MaskPair], read_mask: Callable[[MaskPair], npt.NDArray[np.uint8]], max_pixels: int
    ) -> None:
        self.pairs, self.read_mask, self.max_pixels = pairs, read_mask, max_pixels

    def name(self, index: int) -> str:
        return str(self.pairs[index].image)

    def __getitem__(self, index: int) -> Tensor:
        """Image and mask, uint8 (4, H, W)."""
        pair = self.pairs[index]
        mask = self.read_mask(pair)
        image = decode(pair.image, max_pixels=self.max_pixels).convert("RGB")
        if image.size != mask.shape[::-1]:  # a JPEG so large that it was decoded at reduced scale
            image = image.resize(mask.shape[::-1])
        return torch.from_numpy(np.concatenate([np.asarray(image).transpose(2, 0, 1), mask[None]]))
