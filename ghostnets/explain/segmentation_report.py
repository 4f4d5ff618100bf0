"""Pages of a segmentation network, trained or evaluated: overlap by class, confusion, masks drawn on images."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ghostnets.explain.page import render
from ghostnets.explain.report import DataSummary, MetricCurve, render_curves
from ghostnets.files import write_text

__all__ = ["ClassMasks", "MaskExample", "SegmentationReport", "write_segmentation_report"]


@dataclass(frozen=True)
class MaskExample:
    """An image with its labelled and predicted mask.

    Attributes:
        pixels: uint8 (3, H, W): image, labels and prediction side by side.
        summary: One line on the prediction.
        name: Path of the image.
        link: URL of the image, relative to the page; None if it is not a file on disk.
    """

    pixels: Tensor
    summary: str
    name: str
    link: str | None


@dataclass(frozen=True)
class ClassMasks:
    """Results of one class.

    Attributes:
        name: Name of the class.
        color: Colour of the class in the pictures, such as ``"#800000"``.
        training_images: Training images that have the class; None if unknown.
        share: Share of the evaluated labelled pixels.
        iou, accuracy: Intersection over union, and share of its pixels that are predicted; None without pixels.
        confusion: Share of its labelled pixels that are predicted as each class; None without pixels.
    """

    name: str
    color: str
    training_images: int | None
    share: float
    iou: float | None
    accuracy: float | None
    confusion: Sequence[float] | None


@dataclass(frozen=True)
class SegmentationReport:
    """Content of the page.

    Attributes:
        title: Page title.
        summary: One or two sentences below the title.
        warnings: Caveats about the figures, one sentence each.
        figures: Key figures at the top: label -> value.
        classes: Results by class.
        data: The images of all splits.
        examples: Images with masks: heading -> images.
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
    classes: Sequence[ClassMasks]
    data: DataSummary
    examples: Mapping[str, Sequence[MaskExample]]
    settings: Mapping[str, str]
    command: str
    examples_note: str = "Images not used for training, as the network sees them."
    epochs: Sequence[int] = ()
    curves: Sequence[MetricCurve] = ()


def write_segmentation_report(path: str | os.PathLike[str], report: SegmentationReport) -> None:
    """Write the page atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    curves = render_curves(report.epochs, report.curves) if report.epochs else ""
    write_text(path, render("segmentation_report.html.jinja", report=report, curves=curves))
