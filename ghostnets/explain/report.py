"""``report.html``: a finished training run in one self-contained file that works offline and on phones."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.explain.anatomy import collect_ghost_maps
from ghostnets.explain.figures import confusion_figure, curves_figure, to_svg
from ghostnets.explain.page import max_stage_macs, render, select_ghost_layers
from ghostnets.explain.savings import Savings
from ghostnets.files import write_text

__all__ = ["ClassMetrics", "MetricCurve", "PredictionExample", "RunReport", "render_curves", "write_report"]


@dataclass(frozen=True)
class PredictionExample:
    """An image with its prediction.

    Attributes:
        pixels: uint8 (C, H, W).
        label: Name of the true class.
        prediction: Name of the most probable class.
        probability: Probability of ``prediction``.
    """

    pixels: Tensor
    label: str
    prediction: str
    probability: float

    @property
    def is_correct(self) -> bool:
        return self.label == self.prediction


@dataclass(frozen=True)
class MetricCurve:
    """A metric over the epochs: label with unit, training values and validation values."""

    label: str
    training: Sequence[float]
    validation: Sequence[float]


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class; recall and precision in [0, 1]."""

    name: str
    images: int
    recall: float
    precision: float


@dataclass(frozen=True)
class RunReport:
    """Content of the page.

    Attributes:
        title: Page title.
        summary: One or two sentences below the title.
        figures: Key figures at the top: label -> value.
        epochs: Epoch numbers.
        curves: Metrics over ``epochs``.
        classes: Metrics by class.
        confusion: Confusion matrix; rows are true classes.
        evaluated_on: One sentence naming the evaluated images.
        examples: Images with predictions.
        model: The network, in evaluation mode.
        example_input: Preprocessed image for the ghost maps, float32 (1, C, H, W).
        example_pixels: The same image for display, uint8 (C, H, W).
        savings: Cost by stage.
        settings: Name -> value, in display order.
        command: Command line that repeats the run.
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


def render_curves(epochs: Sequence[int], curves: Sequence[MetricCurve]) -> str:
    """Plot the metrics over the epochs as an inline ``<svg>``."""
    figure = curves_figure(epochs, {curve.label: (curve.training, curve.validation) for curve in curves})
    return to_svg(figure, title="Curves of loss and accuracy over the epochs", prefix="curves")


def write_report(path: str | os.PathLike[str], report: RunReport) -> None:
    """Write the page atomically.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    names = [row.name for row in report.classes]
    page = render(
        "report.html.jinja",
        report=report,
        curves=render_curves(report.epochs, report.curves),
        confusion=to_svg(confusion_figure(report.confusion, names), title="Confusion matrix", prefix="confusion"),
        layers=select_ghost_layers(collect_ghost_maps(report.model, report.example_input)),
        largest_stage=max_stage_macs(report.savings),
    )
    write_text(path, page)
