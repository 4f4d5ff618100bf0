"""Figures of a Ghost network's anatomy: kinds of cheap kernels, sample kernels, accuracy with ghosts replaced."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ghostnets.explain.anatomy import KERNEL_KINDS, CheapKernels
from ghostnets.explain.figures import FIRST, GRID, INK, SECOND, new_figure, style_axis
from ghostnets.explain.ghost_ablation import AblationResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ablation_figure", "kernel_kinds_figure", "kernels_figure"]

KIND_COLORS = dict(zip(KERNEL_KINDS, ("#9aa0a8", "#2f81c4", "#18a8b8", "#2a9d6f", "#e07a2f", "#b0529a"), strict=True))
KERNELS_PER_KIND = 10


def kernel_kinds_figure(kernels: Sequence[CheapKernels]) -> "Figure":
    """Plot the share of cheap kernels of each kind, by Ghost module."""
    figure = new_figure(width=9.0, height=3.8)
    axis = figure.subplots()
    numbers = np.arange(1, len(kernels) + 1)
    counts = [Counter(layer.kinds()) for layer in kernels]
    totals = np.array([count.total() for count in counts])
    bottom = np.zeros(len(kernels))
    for kind in KERNEL_KINDS:
        shares = 100 * np.array([count[kind] for count in counts]) / totals
        if shares.any():
            axis.bar(numbers, shares, bottom=bottom, color=KIND_COLORS[kind], width=0.8, label=kind)
        bottom += shares
    axis.set_xlabel("Ghost module, in network order")
    axis.set_ylabel("cheap kernels (%)")
    axis.set_xlim(0.3, len(kernels) + 0.7)
    axis.locator_params(axis="x", integer=True)
    style_axis(axis)
    figure.legend(loc="outside upper center", ncols=len(KERNEL_KINDS), frameon=False, labelcolor=INK, fontsize=9)
    return figure


def kernels_figure(kernels: Sequence[CheapKernels]) -> "Figure":
    """Show sample kernels of each kind that occurs: red weights are positive, blue negative, white is 0."""
    by_kind: dict[str, list[np.ndarray]] = {kind: [] for kind in KERNEL_KINDS if kind != "nothing"}
    for layer in kernels:
        flat = layer.kernels.flatten(0, 1).numpy()
        for kind, kernel in zip(layer.kinds(), flat, strict=True):
            if kind in by_kind:
                by_kind[kind].append(kernel)
    present = {kind: members for kind, members in by_kind.items() if members}
    figure = new_figure(width=9.0, height=0.3 + 0.82 * len(present))
    grid = figure.subplots(len(present), KERNELS_PER_KIND, squeeze=False)
    for row, (kind, members) in zip(grid, present.items(), strict=True):
        step = max(1, len(members) // KERNELS_PER_KIND)
        for axis, kernel in zip(row, members[::step], strict=False):
            largest = np.abs(kernel).max()
            axis.imshow(kernel, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        for axis in row:
            axis.set_axis_off()
        row[0].text(-0.15, 0.5, kind, transform=row[0].transAxes, ha="right", va="center", color=INK, fontsize=10)
    return figure


def ablation_figure(ablation: AblationResult) -> "Figure":
    """Plot the accuracy with the ghosts of one module replaced, by Ghost module, against the unchanged network's."""
    figure = new_figure(width=9.0, height=3.6)
    axis = figure.subplots()
    numbers = range(1, len(ablation.layers) + 1)
    axis.axhline(100 * ablation.top1, color=INK, linewidth=1.2, linestyle="--", label="unchanged")
    copies = [100 * layer.copies for layer in ablation.layers]
    zeros = [100 * layer.zeros for layer in ablation.layers]
    axis.plot(numbers, copies, color=FIRST, marker="o", markersize=4, label="ghosts replaced by copies")
    axis.plot(numbers, zeros, color=SECOND, marker="s", markersize=4, label="ghosts replaced by zeros")
    axis.set_xlabel("Ghost module with replaced ghosts, in network order")
    axis.set_ylabel("top-1 accuracy (%)")
    axis.set_ylim(0, 102)
    axis.locator_params(axis="x", integer=True)
    axis.grid(color=GRID, linewidth=0.6)
    style_axis(axis)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure
