"""``report.html``: a training run in one self-contained file that opens offline, on a phone as well."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from torch import Tensor, nn

from ghostnets.errors import require
from ghostnets.explain.anatomy import GhostMaps, ghost_maps
from ghostnets.explain.figures import confusion_figure, curves_figure, map_png, pixels_png, to_svg
from ghostnets.explain.savings import Savings
from ghostnets.files import write_text

__all__ = ["ClassRow", "Curve", "Example", "RunReport", "write_report"]

PAIRS_SHOWN = 10  # intrinsic map and ghosts, for each layer


@dataclass(frozen=True)
class Example:
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
    def is_right(self) -> bool:
        return self.truth == self.answer


@dataclass(frozen=True)
class Curve:
    """One quantity over the epochs: its label with the unit, values in training and in validation."""

    label: str
    training: Sequence[float]
    validation: Sequence[float]


@dataclass(frozen=True)
class ClassRow:
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
    curves: Sequence[Curve]
    classes: Sequence[ClassRow]
    confusion: Sequence[Sequence[int]]
    evaluated_on: str
    examples: Sequence[Example]
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
    jinja2 = require("jinja2", extra="explain")
    source = files("ghostnets.explain").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["map_png"] = map_png
    environment.filters["pixels_png"] = pixels_png
    environment.filters["millions"] = lambda value: f"{value / 1e6:,.2f}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    curves = curves_figure(report.epochs, {c.label: (c.training, c.validation) for c in report.curves})
    names = [row.name for row in report.classes]
    maps = _spread(ghost_maps(report.model, report.example_input), 4)
    page = environment.from_string(source).render(
        report=report,
        curves=to_svg(curves, title="Curves of loss and accuracy over the epochs", prefix="curves"),
        confusion=to_svg(confusion_figure(report.confusion, names), title="Confusion matrix", prefix="confusion"),
        layers=[_pairs(layer) for layer in maps],
        largest_stage=max(stage.plain_macs or stage.macs for stage in report.savings.stages),
    )
    write_text(path, page)


@dataclass(frozen=True)
class _Pair:
    intrinsic: Tensor
    ghosts: Tensor
    similarity: Sequence[float]


@dataclass(frozen=True)
class _Layer:
    name: str
    size: str
    count: int
    ghosts_each: int
    pairs: Sequence[_Pair]


def _pairs(maps: GhostMaps) -> _Layer:
    """The pairs whose intrinsic map varies most: constant maps show nothing."""
    order = maps.intrinsic.flatten(1).var(1).argsort(descending=True)[:PAIRS_SHOWN].tolist()
    similarity = maps.similarity()
    return _Layer(
        name=maps.layer,
        size=f"{maps.intrinsic.shape[1]} x {maps.intrinsic.shape[2]}",
        count=len(maps.intrinsic),
        ghosts_each=maps.ghosts.shape[1],
        pairs=[_Pair(maps.intrinsic[i], maps.ghosts[i], similarity[i].tolist()) for i in order],
    )


def _spread(layers: list[GhostMaps], most: int) -> list[GhostMaps]:
    """``most`` layers spread over the depth, among those whose maps are large enough to look at."""
    visible = [layer for layer in layers if layer.intrinsic.shape[-1] >= 7] or layers
    step = (len(visible) - 1) / max(1, most - 1)
    return [visible[i] for i in sorted({round(k * step) for k in range(most)})] if visible else []


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
