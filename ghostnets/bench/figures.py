"""Figures of a benchmark."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ghostnets.bench.benchmark import BenchmarkRow
from ghostnets.errors import require
from ghostnets.measure import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "kinds_figure", "macs_figure", "pareto_front"]

COLOURS = ("#2f81c4", "#e07a2f", "#3a9a5b", "#a05ab5", "#c43f4f", "#8a7a2a")
MARKERS = "os^Dv*PX<>"
GREY = "#7a7f87"


def macs_figure(rows: Sequence[BenchmarkRow]) -> "Figure":
    """Latency per image over multiply-adds; colours are networks, markers are configurations."""
    figure, axis = _axes("multiply-adds per image (millions)", "time per image (ms), median and quartiles")
    _points(axis, rows, lambda row: row.macs / 1e6, time_is_x=False)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    return figure


def accuracy_figure(rows: Sequence[BenchmarkRow]) -> "Figure | None":
    """Published ImageNet accuracy over latency, with the Pareto front; None if no network has a published accuracy."""
    known = [row for row in rows if row.top1 is not None]
    if not known:
        return None
    figure, axis = _axes("time per image (ms), median and quartiles", "published ImageNet top-1 (%)")
    front = pareto_front([(_ms(row), row.top1 or 0.0) for row in known])
    axis.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1, linestyle="--", label="Pareto front")
    _points(axis, known, lambda row: row.top1 or 0.0, time_is_x=True)
    axis.set_xlim(left=0)
    return figure


def kinds_figure(profiles: Mapping[str, Profile]) -> "Figure":
    """Time by kind of layer, one bar per network; kinds below 2 % of the total are grouped as "others"."""
    figure, axis = _axes("time per run (ms), eager PyTorch, profiled by module", "")
    figure.set_size_inches(8.0, 1.8 + 0.5 * len(profiles))
    seconds = {name: {kind: values[0] for kind, values in p.by_kind().items()} for name, p in profiles.items()}
    total = sum(sum(kinds.values()) for kinds in seconds.values())
    by_kind: dict[str, float] = {}
    for kinds in seconds.values():
        for kind, value in kinds.items():
            by_kind[kind] = by_kind.get(kind, 0.0) + value
    shown = [kind for kind, value in sorted(by_kind.items(), key=lambda item: -item[1]) if value >= total / 50]
    left = dict.fromkeys(profiles, 0.0)
    for index, kind in enumerate([*shown, "others"]):
        for name, kinds in seconds.items():
            value = kinds.get(kind, 0.0) if kind != "others" else sum(v for k, v in kinds.items() if k not in shown)
            label = kind if name == next(iter(profiles)) else None
            colour, hatch = COLOURS[index % len(COLOURS)], ("", "//", "..")[index // len(COLOURS) % 3]
            axis.barh(name, value * 1e3, left=left[name], color=colour, hatch=hatch, edgecolor="white", label=label)
            left[name] += value * 1e3
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto-optimal (cost, value) points, by ascending cost.

    >>> pareto_front([(2.0, 70.0), (1.0, 60.0), (3.0, 65.0), (2.5, 75.0)])
    [(1.0, 60.0), (2.0, 70.0), (2.5, 75.0)]
    """
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _ms(row: BenchmarkRow) -> float:
    return row.seconds.median / row.batch * 1e3


def _axes(xlabel: str, ylabel: str) -> "tuple[Figure, Axes]":
    require("matplotlib", extra="explain")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(color="#7a7f8755", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _points(
    axis: "Axes", rows: Sequence[BenchmarkRow], value: Callable[[BenchmarkRow], float], *, time_is_x: bool
) -> None:
    """Draw one point per row with the quartiles of its time; the legend explains colours and markers."""
    networks = list(dict.fromkeys(row.network for row in rows))
    configurations = list(dict.fromkeys(_configuration(row) for row in rows))
    for row in rows:
        median = _ms(row)
        spread = [[median - row.seconds.low / row.batch * 1e3], [row.seconds.high / row.batch * 1e3 - median]]
        x, y = (median, value(row)) if time_is_x else (value(row), median)
        xerr, yerr = (spread, None) if time_is_x else (None, spread)
        colour = COLOURS[networks.index(row.network) % len(COLOURS)]
        marker = MARKERS[configurations.index(_configuration(row)) % len(MARKERS)]
        axis.errorbar([x], [y], xerr=xerr, yerr=yerr, marker=marker, color=colour, markersize=6, elinewidth=0.8)
    for index, network in enumerate(networks):
        axis.plot([], [], color=COLOURS[index % len(COLOURS)], linewidth=5, label=network)
    for index, configuration in enumerate(configurations):
        axis.plot([], [], color=GREY, linestyle="", marker=MARKERS[index % len(MARKERS)], label=configuration)
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


def _configuration(row: BenchmarkRow) -> str:
    threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
    return f"{row.backend} {row.precision}, batch {row.batch}, {threads}"
