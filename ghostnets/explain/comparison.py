"""``compare.html``: several training runs side by side in one self-contained file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostnets.explain.figures import GRID, INK, new_figure, style_axis, to_svg
from ghostnets.explain.fonts import drawable_labels, find_fonts
from ghostnets.explain.page import render
from ghostnets.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ComparedRun", "comparison_figure", "write_comparison"]

COLORS = ("#2f81c4", "#e07a2f", "#1d9a6c", "#b0479b", "#8a6d3b", "#c23b3b", "#5b6ee1", "#6b8e23")
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class ComparedRun:
    """A training run to compare.

    Attributes:
        name: Name of the run.
        epochs: Epoch numbers.
        curves: Label with unit -> one value per epoch; the same labels for all runs.
        results: Label -> formatted value; the same labels for all runs.
        settings: Name -> formatted value.
    """

    name: str
    epochs: Sequence[int]
    curves: dict[str, Sequence[float]]
    results: dict[str, str]
    settings: dict[str, str]


def comparison_figure(runs: Sequence[ComparedRun]) -> "Figure":
    """Plot one panel per metric with one line per run."""
    labels = list(runs[0].curves)
    figure = new_figure(width=9.0, height=3.6 + 0.18 * len(runs))
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    for axis, label in zip(axes, labels, strict=True):
        for number, run in enumerate(runs):
            color, dash = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
            axis.plot(run.epochs, run.curves[label], dash, color=color, linewidth=1.6)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=GRID, linewidth=0.6)
        style_axis(axis)
    names = drawable_labels([run.name for run in runs], list(range(1, len(runs) + 1)), fonts := find_fonts())
    legend = figure.legend(
        axes[0].get_lines(), [""] * len(runs), loc="outside lower center", frameon=False, labelcolor=INK, ncols=2
    )
    for text, name in zip(legend.get_texts(), names, strict=True):  # matplotlib drops labels that begin with "_"
        text.set(text=name, parse_math=False, fontfamily=fonts, fontsize=9)
    return figure


def write_comparison(path: str | os.PathLike[str], runs: Sequence[ComparedRun], differing: Sequence[str]) -> None:
    """Write the page atomically.

    Args:
        path: Output path.
        runs: At least one run.
        differing: Names of the settings that differ between the runs, in display order.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file could not be written.
    """
    curves = to_svg(comparison_figure(runs), title="Curves of all runs over the epochs", prefix="curves")
    write_text(path, render("comparison.html.jinja", runs=runs, differing=differing, curves=curves))
