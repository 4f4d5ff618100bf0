"""``report.html``: a training run in one self-contained file that opens offline, on a phone as well."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.explain.anatomy import collect_ghost_maps
from ghostnets.explain.figures import confusion_figure, curves_figure, to_svg
from ghostnets.explain.page import max_stage_macs, render, select_ghost_layers
from ghostnets.explain.savings import Savings
from ghostnets.files import write_text

__all__ = ["ClassMetrics", "MetricCurve", "PredictionExample", "RunReport", "write_report"]


@dataclass(frozen=True)
class PredictionExample:
    """An image with the answer to it.

    Attributes:
        pixels: uint8 (C, H, W).
        truth: Name of its class.
        answer: Name of the most probable class.
        probability: Of ``answer``.
    """

    pixels: Tensor
    truth: str
    answer: str
    probability: float

    @property
    def is_correct(self) -> bool:
        return self.truth == self.answer


@dataclass(frozen=True)
class MetricCurve:
    """One quantity over the epochs: its label with the unit, values in training and in validation."""

    label: str
    training: Sequence[float]
    validation: Sequence[float]


@dataclass(frozen=True)
class ClassMetrics:
    """A class in the table of results: shares in [0, 1]."""

    name: str
    images: int
    recall: float
    precision: float


@dataclass(frozen=True)
class RunReport:
    """What the page shows.

    Attributes:
        title: Of the page.
        summary: One or two sentences below it.
        figures: The large numbers at the top: label -> value.
        curves: Over ``epochs``.
        epochs: Numbers of the epochs.
        classes, confusion: Of the evaluation; rows of ``confusion`` are true classes.
        evaluated_on: What the evaluation was measured on, one sentence.
        examples: Images with answers.
        model: The network, in evaluation mode.
        example_input: float32 (1, C, H, W) for the ghost maps.
        example_pixels: uint8 (C, H, W), the same image to look at.
        savings: Cost by stage.
        settings: Name -> value, in order.
        command: What repeats the run.
    """

    title: str
    summary: str
    figures: dict[str, str]
    epochs: Sequence[int]
    curves: Sequence[MetricCurve]
    classes: Sequence[ClassMetrics]
    confusion: Sequence[Sequence[int]]
    evaluated_on: str
    examples: Sequence[PredictionExample]
    model: nn.Module
    example_input: Tensor
    example_pixels: Tensor
    savings: Savings
    settings: dict[str, str]
    command: str


def write_report(path: str | os.PathLike[str], report: RunReport) -> None:
    """Writes the page, atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    curves = curves_figure(report.epochs, {c.label: (c.training, c.validation) for c in report.curves})
    names = [row.name for row in report.classes]
    page = render(
        "report.html.jinja",
        report=report,
        curves=to_svg(curves, title="Curves of loss and accuracy over the epochs", prefix="curves"),
        confusion=to_svg(confusion_figure(report.confusion, names), title="Confusion matrix", prefix="confusion"),
        layers=select_ghost_layers(collect_ghost_maps(report.model, report.example_input)),
        largest_stage=max_stage_macs(report.savings),
    )
    write_text(path, page)
