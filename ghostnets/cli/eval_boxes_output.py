"""Output of ``ghostnets eval`` of a detector: by class and by image, as JSON, on the console, and as a page."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from ghostnets.artefacts import DetectedObjects
from ghostnets.cli.eval_labels import tell_training_images
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import result_console
from ghostnets.data.boxes import BoxAnnotations
from ghostnets.explain import DataSummary
from ghostnets.explain.detection_report import DetectionReport, write_detection_report
from ghostnets.measure import BoxScores
from ghostnets.models.detection import Detections
from ghostnets.preprocessing import decode
from ghostnets.terminal import format_count, printable
from ghostnets.train.detection import BoxTargets
from ghostnets.train.detection.report import (
    BoxMatches,
    collect_class_results,
    collect_precision_curves,
    count_matches,
    select_examples,
)

__all__ = ["BoxRows", "image_rows", "print_boxes", "to_json", "write_boxes_page"]

MAX_CLASSES = 50  # in the table of the console
MAX_LINES = 5  # images named on the console
SIDE = 480  # pixels of the longer side of a picture on the page


@dataclass(frozen=True)
class BoxRows:
    """Results of each image, in pixels of the image, (x_min, y_min, x_max, y_max)."""

    images: Sequence[BoxAnnotations]
    detections: Sequence[Detections]
    targets: Sequence[BoxTargets]
    matches: Sequence[BoxMatches]

    def columns(self) -> dict[str, list[Any]]:
        """Numbers of objects, found and missed, and of false detections of each image, by column."""
        return {
            "path": [printable(str(image.path)) for image in self.images],
            **{name: [getattr(row, name) for row in self.matches] for name in BoxMatches._fields},
        }

    def most_mistakes(self) -> list[int]:
        """Indices of the images with mistakes, those with the most first."""
        counts = [row.missed + row.false for row in self.matches]
        return [index for index in sorted(range(len(counts)), key=lambda i: -counts[i]) if counts[index]]


def image_rows(found: Sequence[DetectedObjects], images: Sequence[BoxAnnotations]) -> BoxRows:
    """Compare what was found in each image with its labels."""
    detections = [
        Detections(torch.from_numpy(one.boxes), torch.tensor(one.scores), torch.tensor(one.labels, dtype=torch.int64))
        for one in found
    ]
    targets = [
        BoxTargets(*map(torch.from_numpy, (image.boxes.astype(np.float32), image.labels, image.is_crowd)))
        for image in images
    ]
    return BoxRows(
        images, detections, targets, [count_matches(*pair) for pair in zip(detections, targets, strict=True)]
    )


def to_json(scores: BoxScores, rows: BoxRows, in_training: np.ndarray | None) -> dict[str, Any]:
    """Everything, ready for JSON; of the images those with mistakes."""
    metrics, columns = scores.metrics, rows.columns()
    values = scores.to_dict()
    classes = values.pop("classes")
    training = None if in_training is None else {"images": int(in_training.sum())}
    return {
        **values,
        **{f"mean_average_precision_{size}": getattr(metrics, size) for size in ("small", "medium", "large")},
        "classes": classes,
        "training_images": training,
        "mistakes": [{name: values[index] for name, values in columns.items()} for index in rows.most_mistakes()],
    }


def print_boxes(scores: BoxScores, rows: BoxRows, split: str, in_training: np.ndarray | None) -> None:
    """Print the classes, the most confused ones, the images with the most mistakes, and the average precisions."""
    console = result_console()
    console.print(_class_table(scores))
    if len(scores.classes) > MAX_CLASSES:
        console.print(
            f"the {MAX_CLASSES} of {len(scores.classes)} classes with the lowest average precision; all: --json"
        )
    for true, found, count in scores.most_confused()[:MAX_LINES]:
        objects = f"{format_count(count, 'object')} of {scores.class_names[true]}"
        console.print(f"{objects} detected as {scores.class_names[found]}", soft_wrap=True)
    for index in rows.most_mistakes()[:MAX_LINES]:
        row, name = rows.matches[index], printable(str(rows.images[index].path))
        false = format_count(row.false, "false detection")
        console.print(f"{name}: {row.found} found, {row.missed} missed, {false}", soft_wrap=True)
    headline = "   ".join(f"{label} {value}" for label, value in scores.headline().items())
    console.print(f"{format_count(scores.images, 'image')} ({split})   {headline}", soft_wrap=True)
    sizes = ", ".join(f"{size} {_percent(getattr(scores.metrics, size))}" for size in ("small", "medium", "large"))
    console.print(f"mAP of objects below 32 x 32, up to 96 x 96 and above, in pixels of the images: {sizes}")
    console.print(scores.describe_baseline(), soft_wrap=True)
    console.print("Found and missed: detections with a score of at least 0.3, at an IoU of at least 0.5.")
    tell_training_images(in_training)


def _class_table(scores: BoxScores) -> Table:
    table = Table("no.", "class", "boxes", "AP", "AP50", title=None)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    rows = list(enumerate(scores.classes, 1))
    if len(rows) > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: 2.0 if row[1].mean is None else row[1].mean)[:MAX_CLASSES]
    for number, row in rows:
        table.add_row(str(number), row.name, str(row.boxes), _percent(row.mean), _percent(row.at_50))
    return table


def _percent(value: float | None) -> str:
    return "no boxes" if value is None else f"{value:.1%}"


def write_boxes_page(
    command: EvalCommand, scores: BoxScores, rows: BoxRows, *, title: str, split: str, summary: dict[str, Any]
) -> None:
    """Write the page of ``--page``, as the report of a training run shows its evaluation.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    assert command.page is not None
    pictures = Pictures(rows.images, command.max_pixels)
    factors = [pictures.factor(index) for index in range(len(rows.images))]
    detections = [row._replace(boxes=row.boxes * f) for row, f in zip(rows.detections, factors, strict=True)]
    targets = [
        BoxTargets(row.boxes * f, row.labels, row.is_crowd) for row, f in zip(rows.targets, factors, strict=True)
    ]
    options = ["--page", str(command.page), *(["--part", command.split] if command.split != "auto" else [])]
    report = DetectionReport(
        title=title,
        summary=f"{format_count(len(scores.classes), 'class')}. Measured on {format_count(scores.images, 'image')}"
        f" ({split}), with the boxes that predict finds, in pixels of the images.",
        warnings=[scores.describe_baseline()],
        figures=scores.headline(),
        classes=collect_class_results(scores, [None] * len(scores.classes)),
        precision=collect_precision_curves(scores),
        confusion=scores.confusion_rows(),
        data=DataSummary(summary["splits"], summary["notes"], summary["images"]),
        examples=select_examples(detections, targets, pictures, scores.class_names, command.page.parent),
        examples_note="The images with the most and with the fewest mistakes.",
        settings={},
        command=shlex.join(["ghostnets", "eval", str(command.network), command.data, *options]),
    )
    write_detection_report(command.page, report)


class Pictures:
    """The images at the size of the page, read when they are shown."""

    def __init__(self, images: Sequence[BoxAnnotations], max_pixels: int) -> None:
        self.images, self.max_pixels = images, max_pixels

    def factor(self, index: int) -> float:
        """Pixels of the picture for one of the image."""
        return min(1.0, SIDE / max(self.images[index].size))

    def name(self, index: int) -> str:
        return str(self.images[index].path)

    def __getitem__(self, index: int) -> Tensor:
        image = decode(Path(self.name(index)), max_pixels=self.max_pixels).convert("RGB")
        size = [max(1, round(side * self.factor(index))) for side in self.images[index].size]
        pixels = np.asarray(image.resize((size[0], size[1])))
        return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
