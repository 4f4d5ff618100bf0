"""The page of a training run while it goes on; the final report takes its place."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ghostnets.explain.figures import curves_figure, to_svg
from ghostnets.explain.page import render
from ghostnets.explain.report import MetricCurve
from ghostnets.files import write_text

__all__ = ["RunProgress", "write_progress"]

REFRESH = 20  # seconds after which a browser reads the page again


@dataclass(frozen=True)
class RunProgress:
    """What the page shows.

    Attributes:
        title: Of the page.
        done, total: Epochs.
        figures: The large numbers at the top: label -> value.
        epochs: Numbers of the epochs that are done.
        curves: Over ``epochs``.
        settings: Name -> value, in order.
        command: What repeats the run.
    """

    title: str
    done: int
    total: int
    figures: dict[str, str]
    epochs: Sequence[int]
    curves: Sequence[MetricCurve]
    settings: dict[str, str]
    command: str


def write_progress(path: str | os.PathLike[str], progress: RunProgress) -> None:
    """Writes the page, atomically; a browser that shows it reads it again now and then.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    figure = curves_figure(progress.epochs, {c.label: (c.training, c.validation) for c in progress.curves})
    curves = to_svg(figure, title="Curves of loss and accuracy over the epochs", prefix="curves")
    write_text(path, render("progress.html.jinja", progress=progress, curves=curves, refresh=REFRESH))
