"""Figures of redundancy: maps with their twins, redundancy by depth, error against the size of the filter."""

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

# Colour and marker of each kind of layer; the marker alone tells them apart as well.
KINDS = {
    "widening Ghost module": ("#2f81c4", "o"),
    "Ghost module": ("#e07a2f", "s"),
    "widening convolution": ("#2a9d6f", "^"),
    "convolution": ("#b0529a", "D"),
    "depthwise convolution": ("#8c7a2b", "v"),
}
PAIR_COLORS = ("#e5332a", "#2aa84a", "#2f6fe0", "#e0a21f", "#b04ad0", "#18a8b8")
COLUMNS, ROWS = 12, 5
GAP = 0.18  # between maps, as a share of their side


def gallery_figure(maps: Tensor, pairs: Sequence[tuple[int, int, float]]) -> "Figure":
    """The maps of one image with boxes around the most similar pairs, as in the paper's first figure.

    Up to 60 maps, in the order of their channels, those of the boxed pairs always among them.

    Args:
        maps: (C, H, W).
        pairs: (map, map, cosine); up to six are boxed, with a letter each.
    """
    pairs = pairs[: len(PAIR_COLORS)]
    boxed = {channel for first, second, _ in pairs for channel in (first, second)}
    shown = sorted([*boxed, *[c for c in range(len(maps)) if c not in boxed][: COLUMNS * ROWS - len(boxed)]])
    rows = -(-len(shown) // COLUMNS)
    figure = new_figure(width=9.0, height=0.1 + 0.76 * rows)
    axis = figure.subplots()
    pitch = 1 + GAP
    places = {channel: (index % COLUMNS * pitch, index // COLUMNS * pitch) for index, channel in enumerate(shown)}
    for channel, (left, top) in places.items():
        axis.imshow(
            map_colors(maps[channel]), extent=(left, left + 1, top + 1, top), interpolation="nearest", aspect="equal"
        )
    for color, letter, (first, second, _) in zip(PAIR_COLORS, "ABCDEF", pairs, strict=False):
        for left, top in (places[first], places[second]):
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
    """Over the depth: the share of maps with a twin, and the variance that 3 x 3 filters leave of the ghosts."""
    figure = new_figure(width=9.0, height=5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    for kind, numbers, layers in _by_kind(redundancy):
        color, marker = KINDS[kind]
        shares = [100 * layer.twins_90 for layer in layers]
        strict = [100 * layer.twins_95 for layer in layers]
        above.vlines(numbers, strict, shares, color=color, linewidth=1)
        above.plot(numbers, shares, marker, color=color, markersize=5, clip_on=False, label=kind)
        above.plot(numbers, strict, marker, color=color, markersize=5, clip_on=False, markerfacecolor="none")
        left = [100 * layer.errors[3] for layer in layers]
        below.plot(numbers, left, marker, color=color, markersize=5, linestyle="-", linewidth=0.7)
    above.set_ylabel("maps with a twin (%)\nfilled: cosine > 0.9, hollow: > 0.95", fontsize=9)
    below.set_ylabel("variance of the ghosts\nthat 3 x 3 filters leave (%)", fontsize=9)
    below.set_xlabel("layer, in the order they run (numbers as in the table)")
    for axis in (above, below):
        axis.set_ylim(bottom=0)
        axis.grid(color=GRID, linewidth=0.6)
        style_axis(axis)
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False,
                  labelcolor=INK, fontsize=9)  # fmt: skip
    return figure


def error_figure(redundancy: Redundancy) -> "Figure":
    """The variance left against the size of the filter: a thin line for each layer, a thick one for each kind."""
    figure = new_figure(width=6.5, height=4.0)
    axis = figure.subplots()
    for kind, _, layers in _by_kind(redundancy):
        color, marker = KINDS[kind]
        lines = np.array([[100 * layer.errors[d] for d in KERNEL_SIZES] for layer in layers])
        for line in lines:
            axis.plot(KERNEL_SIZES, line, color=color, linewidth=0.6, alpha=0.35)
        axis.plot(
            KERNEL_SIZES, lines.mean(0), color=color, marker=marker, linewidth=2.2, label=f"{kind} ({len(lines)})"
        )
    axis.set_xticks(KERNEL_SIZES)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("side d of the filter (pixels)")
    axis.set_ylabel("variance of the ghosts left (%)")
    axis.grid(color=GRID, linewidth=0.6)
    style_axis(axis)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def _by_kind(redundancy: Redundancy) -> list[tuple[str, list[int], list[LayerRedundancy]]]:
    """Each kind that occurs, with the numbers of its layers from 1 and these. Layers with one map that varies have no
    ghost, so there is nothing to draw of them.
    """
    numbered = [(n, layer) for n, layer in enumerate(redundancy.layers, start=1) if layer.ghosts]
    found = []
    for kind in KINDS:
        members = [(n, layer) for n, layer in numbered if layer.kind == kind]
        if members:
            found.append((kind, [n for n, _ in members], [layer for _, layer in members]))
    return found


def _box(left: float, top: float, color: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((left - GAP / 3, top - GAP / 3), 1 + 2 * GAP / 3, 1 + 2 * GAP / 3, fill=False, ec=color, lw=2.4)
