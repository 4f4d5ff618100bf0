"""Pages of a detector, trained or evaluated: average precision by class, curves, boxes drawn on images."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ghostnets.errors import require
from ghostnets.explain.figures import to_svg
from ghostnets.explain.page import render
from ghostnets.explain.report import DataSummary, MetricCurve, render_curves
from ghostnets.files import write_text

__all__ = ["BoxExample", "ClassBoxes", "DetectionReport", "write_detection_report"]


@dataclass(frozen=True)
class BoxExample:
    """An image with its labelled and detected boxes drawn.

    Attributes:
        pixels: uint8 (C, H, W), with the boxes.
        summary: One line on what was found.
        name: Path of the image.
        link: URL of the image, relative to the page; None if it is not a file on disk.
    """

    pixels: Tensor
    summary: str
    name: str
    link: str | None


@dataclass(frozen=True)
class ClassBoxes:
    """Results of one class: labelled boxes, in training, if known, and evaluated; average precisions, None without."""

    name: str
    training_boxes: int | None
    boxes: int
    mean: float | None
    at_50: float | None


@dataclass(frozen=True)
class DetectionReport:
    """Content of the page.

    Attributes:
        title: Page title.
        summary: One or two sentences below the title.
        warnings: Caveats about the figures, one sentence each.
        figures: Key figures at the top: label -> value.
        classes: Results by class.
        precision: Precision of each class at 101 recalls from 0 to 1, at an IoU threshold of 0.5.
        confusion: Objects of each class, by the class that they are detected as and then missed; last, detections
            without an object.
        data: The images of all splits, with numbers of boxes.
        examples: Images with boxes: heading -> images.
        settings: Name -> value, in display order.
        command: Command line that repeats the run, or the evaluation.
        examples_note: What the examples are.
        epochs: Epoch numbers of a training run; empty for an evaluation.
        curves: Metrics over ``epochs``.
    """

    title: str
    summary: str
    warnings: Sequence[str]
    figures: Mapping[str, str]
    classes: Sequence[ClassBoxes]
    precision: Mapping[str, Sequence[float]]
    confusion: Mapping[str, Sequence[int]]
    data: DataSummary
    examples: Mapping[str, Sequence[BoxExample]]
    settings: Mapping[str, str]
    command: str
    examples_note: str = "Images that were not used for training, at the input size."
    epochs: Sequence[int] = ()
    curves: Sequence[MetricCurve] = ()


def write_detection_report(path: str | os.PathLike[str], report: DetectionReport) -> None:
    """Write the page atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    page = render(
        "detection_report.html.jinja",
        report=report,
        curves=render_curves(report.epochs, report.curves) if report.epochs else "",
        precision=_render_precision(report.precision) if report.precision else "",
    )
    write_text(path, page)


def _render_precision(curves: Mapping[str, Sequence[float]]) -> str:
    """Plot the precision-recall curve of each class as an inline ``<svg>``."""
    figure = require("matplotlib.figure", extra="train").Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        recalls = [index / (len(values) - 1) for index in range(len(values))]
        axes.plot(recalls, values, label=name.replace("$", r"\$"))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return to_svg(figure, title="Precision-recall curve of each class at an IoU threshold of 0.5", prefix="precision")
