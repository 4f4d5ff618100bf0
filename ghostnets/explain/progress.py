"""``report.html`` of an ongoing training run; the final report replaces it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ghostnets.explain.page import render
from ghostnets.explain.report import MetricCurve, render_curves
from ghostnets.files import write_text

__all__ = ["RunProgress", "write_progress"]

REFRESH_SECONDS = 20  # reload interval of the page


@dataclass(frozen=True)
class RunProgress:
    """Content of the page.

    Attributes:
        title: Page title.
        done, total: Number of completed epochs and of all epochs.
        figures: Key figures at the top: label -> value.
        epochs: Numbers of the completed epochs.
        curves: Metrics over ``epochs``.
        settings: Name -> value, in display order.
        command: Command line that repeats the run.
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
    """Write the page atomically; it reloads itself every ``REFRESH_SECONDS``.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    curves = render_curves(progress.epochs, progress.curves)
    write_text(path, render("progress.html.jinja", progress=progress, curves=curves, refresh=REFRESH_SECONDS))
