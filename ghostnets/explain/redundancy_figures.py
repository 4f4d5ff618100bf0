"""Figures of redundancy: map gallery with similar pairs, redundancy by depth, error by filter size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ghostnets.explain.figures import GRID, INK, map_colors, new_figure, style_axis
from ghostnets.explain.redundancy import KERNEL_SIZES, LayerRedundancy, Redundancy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

__all__ = ["depth_figure", "error_figure", "gallery_figure"]

# Kind of layer -> colour, marker; the markers distinguish the kinds without colour.
KIND_STYLES = {
    "widening Ghost module": ("#2f81c4", "o"),
    "Ghost module": ("#e07a2f", "s"),
    "widening convolution": ("#2a9d6f", "^"),
    "convolution": ("#b0529a", "D"),
    "depthwise convolution": ("#8c7a2b", "v"),
}
PAIR_COLORS = ("#e5332a", "#2aa84a", "#2f6fe0", "#e0a21f", "#b04ad0", "#18a8b8")
COLUMNS, ROWS = 12, 5
GAP = 0.18  # between maps, relative to their side


def gallery_figure(maps: Tensor, pairs: Sequence[tuple[int, int, float]]) -> "Figure":
    """Show the maps of one image with boxes around the most similar pairs, as in figure 1 of the GhostNet paper.

    Shows up to 60 maps in channel order, always including the boxed ones.

    Args:
        maps: (C, H, W).
        pairs: (map, map, cosine), most similar first; the first six are boxed and lettered.
    """
    pairs = pairs[: len(PAIR_COLORS)]
    boxed = {channel for first, second, _ in pairs for channel in (first, second)}
    shown = sorted([*boxed, *[c for c in range(len(maps)) if c not in boxed][: COLUMNS * ROWS - len(boxed)]])
    rows = -(-len(shown) // COLUMNS)
    figure = new_figure(width=9.0, height=0.1 + 0.76 * rows)
    axis = figure.subplots()
    pitch = 1 + GAP
    positions = {channel: (index % COLUMNS * pitch, index // COLUMNS * pitch) for index, channel in enumerate(shown)}
    for channel, (left, top) in positions.items():
        axis.imshow(
            map_colors(maps[channel]), extent=(left, left + 1, top + 1, top), interpolation="nearest", aspect="equal"
        )
    for color, letter, (first, second, _) in zip(PAIR_COLORS, "ABCDEF", pairs, strict=False):
        for left, top in (positions[first], positions[second]):
            axis.add_patch(_box(left, top, color))
            axis.text(
                left + 0.07, top + 0.09, letter, color="white", fontsize=8, weight="bold", va="top",
                bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axis.set_xlim(-GAP, COLUMNS * pitch)
    axis.set_ylim(rows * pitch, -GAP)
    axis.axis("off")
    return figure


def depth_figure(redundancy: Redundancy) -> "Figure":
    """Plot by layer: the share of maps with a near-duplicate, and the unexplained variance of the ghosts at d = 3."""
    figure = new_figure(width=9.0, height=5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for kind, numbers, layers in _by_kind(redundancy):
        color, marker = KIND_STYLES[kind]
        above_90 = [100 * layer.duplicates_90 for layer in layers]
        above_95 = [100 * layer.duplicates_95 for layer in layers]
        upper.vlines(numbers, above_95, above_90, color=color, linewidth=1)
        upper.plot(numbers, above_90, marker, color=color, markersize=5, clip_on=False, label=kind)
        upper.plot(numbers, above_95, marker, color=color, markersize=5, clip_on=False, markerfacecolor="none")
        errors = [100 * layer.errors[3] for layer in layers]
        lower.plot(numbers, errors, marker, color=color, markersize=5, linestyle="-", linewidth=0.7)
    upper.set_ylabel("maps with a near-duplicate (%)\nfilled: cosine > 0.9, hollow: > 0.95", fontsize=9)
    lower.set_ylabel("unexplained variance of the\nghosts, 3 x 3 filters (%)", fontsize=9)
    lower.locator_params(axis="x", integer=True)
    lower.set_xlabel("layer, in execution order (numbers as in the table)")
    for axis in (upper, lower):
        axis.set_ylim(bottom=0)
        axis.grid(color=GRID, linewidth=0.6)
        style_axis(axis)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False,
                  labelcolor=INK, fontsize=9)  # fmt: skip
    return figure


def error_figure(redundancy: Redundancy) -> "Figure":
    """Plot the unexplained variance by filter size: a thin line per layer, a thick line for the mean of each kind."""
    figure = new_figure(width=6.5, height=4.0)
    axis = figure.subplots()
    for kind, _, layers in _by_kind(redundancy):
        color, marker = KIND_STYLES[kind]
        lines = np.array([[100 * layer.errors[d] for d in KERNEL_SIZES] for layer in layers])
        for line in lines:
            axis.plot(KERNEL_SIZES, line, color=color, linewidth=0.6, alpha=0.35)
        axis.plot(
            KERNEL_SIZES, lines.mean(0), color=color, marker=marker, linewidth=2.2, label=f"{kind} ({len(lines)})"
        )
    axis.set_xticks(KERNEL_SIZES)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("filter size d (pixels)")
    axis.set_ylabel("unexplained variance of the ghosts (%)")
    axis.grid(color=GRID, linewidth=0.6)
    style_axis(axis)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def _by_kind(redundancy: Redundancy) -> list[tuple[str, list[int], list[LayerRedundancy]]]:
    """Group the layers that have ghosts: (kind, layer numbers counted from 1, layers) for each kind that occurs."""
    numbered = [(n, layer) for n, layer in enumerate(redundancy.layers, start=1) if layer.ghosts]
    groups = []
    for kind in KIND_STYLES:
        members = [(n, layer) for n, layer in numbered if layer.kind == kind]
        if members:
            groups.append((kind, [n for n, _ in members], [layer for _, layer in members]))
    return groups


def _box(left: float, top: float, color: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((left - GAP / 3, top - GAP / 3), 1 + 2 * GAP / 3, 1 + 2 * GAP / 3, fill=False, ec=color, lw=2.4)
