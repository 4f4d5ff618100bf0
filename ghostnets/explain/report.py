"""``report.html``: a finished training run in one self-contained file that works offline and on phones."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ghostnets.explain.anatomy import collect_ghost_maps
from ghostnets.explain.confusion import count_matrix, select_classes
from ghostnets.explain.figures import curves_figure, to_svg
from ghostnets.explain.fonts import shorten
from ghostnets.explain.page import max_stage_macs, render, select_ghost_layers
from ghostnets.explain.savings import Savings
from ghostnets.files import write_text
from ghostnets.measure import format_accuracy

MAX_PAIRS = 500  # rows of the table of confused classes

__all__ = [
    "ClassMetrics",
    "DataSummary",
    "MetricCurve",
    "PredictionExample",
    "RunReport",
    "render_curves",
    "write_report",
]


@dataclass(frozen=True)
class PredictionExample:
    """An image with its prediction.

    Attributes:
        pixels: uint8 (C, H, W).
        label: Name of the true class; for multi-label data, names of all true classes.
        prediction: Name of the most probable class; for multi-label data, names of all predicted classes.
        probability: Probability of ``prediction``.
        name: Path of the image, or another name for it.
        link: URL of the image, relative to the page; None if it is not a file on disk.
    """

    pixels: Tensor
    label: str
    prediction: str
    probability: float
    name: str
    link: str | None

    @property
    def is_correct(self) -> bool:
        return self.label == self.prediction


@dataclass(frozen=True)
class MetricCurve:
    """A metric over the epochs: label with unit, training values (may be empty), and validation values."""

    label: str
    training: Sequence[float]
    validation: Sequence[float]


@dataclass(frozen=True)
class ClassMetrics:
    """Results of one class.

    Attributes:
        name: Class name.
        training_images: Number of training images of the class.
        images: Number of evaluated images of the class.
        predicted: Number of evaluated images predicted as the class.
        correct: Number of evaluated images of the class that are predicted as the class.
    """

    name: str
    training_images: int
    images: int
    predicted: int
    correct: int


@dataclass(frozen=True)
class DataSummary:
    """The images of a run.

    Attributes:
        splits: Split -> class -> number of images.
        notes: Assumptions and exclusions, one sentence each.
        images: Split -> number of images, where it is not the sum over the classes.
    """

    splits: Mapping[str, Mapping[str, int]]
    notes: Sequence[str]
    images: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfusedPair:
    """A true class and a class that it is mistaken for.

    Attributes:
        label: Name of the true class.
        prediction: Name of the predicted class.
        count: Number of images of the true class that are predicted as the other one.
        images: Number of all evaluated images of the true class.
    """

    label: str
    prediction: str
    count: int
    images: int


@dataclass(frozen=True)
class ConfusionView:
    """The tables of the confusion matrix.

    Attributes:
        names: Names of the classes in the matrix, in display order.
        counts, shares: Rows of the matrix: numbers of images, and shares of all images of the true class.
        pairs: Pairs of classes with mistakes, most images first.
        num_pairs: Number of all such pairs.
        classes: Number of each class, from 1, its results and the class that it is most often mistaken for; lowest
            recall first.
    """

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    shares: Sequence[Sequence[float]]
    pairs: Sequence[ConfusedPair]
    num_pairs: int
    classes: Sequence[tuple[int, ClassMetrics, ConfusedPair | None]]


@dataclass(frozen=True)
class RunReport:
    """Content of the page.

    Attributes:
        title: Page title.
        summary: One or two sentences below the title.
        warnings: Caveats about the figures, one sentence each.
        figures: Key figures at the top: label -> value, its interval in parentheses.
        epochs: Epoch numbers.
        curves: Metrics over ``epochs``.
        classes: Metrics by class.
        confusion: True class, predicted class and number of images, for each pair that occurs; empty for multi-label
            data, which have none.
        evaluated_on: One sentence naming the evaluated images.
        data: The images of all splits.
        examples: Images with predictions: heading -> images.
        model: The network, in evaluation mode.
        example_input: Preprocessed image for the ghost maps, float32 (1, C, H, W).
        example_pixels: The same image for display, uint8 (C, H, W).
        savings: Cost by stage.
        settings: Name -> value, in display order.
        command: Command line that repeats the run.
    """

    title: str
    summary: str
    warnings: Sequence[str]
    figures: dict[str, str]
    epochs: Sequence[int]
    curves: Sequence[MetricCurve]
    classes: Sequence[ClassMetrics]
    confusion: Sequence[tuple[int, int, int]]
    evaluated_on: str
    data: DataSummary
    examples: dict[str, Sequence[PredictionExample]]
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
    page = render(
        "report.html.jinja",
        report=report,
        accuracy=format_accuracy,
        shorten=shorten,
        curves=render_curves(report.epochs, report.curves),
        confusion=_view_confusion(report.classes, report.confusion),
        layers=select_ghost_layers(collect_ghost_maps(report.model, report.example_input)),
        largest_stage=max_stage_macs(report.savings),
    )
    write_text(path, page)


def _view_confusion(classes: Sequence[ClassMetrics], cells: Sequence[tuple[int, int, int]]) -> ConfusionView:
    shown = select_classes(cells, len(classes))
    counts, shares = count_matrix(cells, shown)
    mistakes = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))
    worst: dict[int, ConfusedPair] = {}
    pairs = []
    for true, predicted, count in mistakes:
        pair = ConfusedPair(classes[true].name, classes[predicted].name, count, classes[true].images)
        worst.setdefault(true, pair)
        pairs.append(pair)
    order = sorted(
        range(len(classes)),
        key=lambda i: classes[i].correct / classes[i].images if classes[i].images else 2.0,  # absent classes last
    )
    return ConfusionView(
        names=[classes[i].name for i in shown],
        counts=counts.tolist(),
        shares=shares.tolist(),
        pairs=pairs[:MAX_PAIRS],
        num_pairs=len(pairs),
        classes=[(i + 1, classes[i], worst.get(i)) for i in order],
    )
