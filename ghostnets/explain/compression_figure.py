"""Figure of a compression: damage of single changes by layer, and agreement over budgets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ghostnets.compress import SiteSensitivity
from ghostnets.explain.figures import FIRST, GRID, SECOND, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compression_figure"]

# Kind of change -> colour, marker; the markers distinguish the kinds without colour.
KIND_STYLES = {
    "merge": (FIRST, "o", "channels merged"),
    "ghost": (SECOND, "s", "Ghost module"),
    "mixed ghost": ("#2a9d6f", "^", "Ghost module with mixed intrinsic maps"),
}
MAX_NAMES = 80  # layers whose names are readable
LEAST = 1e-6  # damage, the lower end of the axis


def compression_figure(
    sensitivity: Sequence[SiteSensitivity],
    curve: Sequence[Mapping[str, Any]],
    healed: Mapping[str, float] | None = None,
    *,
    unit: str = "multiply-adds",
) -> "Figure":
    """Plot the damage of changing each convolution alone, and the agreement of the networks with the original.

    Args:
        sensitivity: Measured damages, in order of execution.
        curve: Networks, each with ``"cost"``, its share of the original's cost, and ``"agreement"``: share of images of
            the same class (``"share"``) and its interval (``"low"``, ``"high"``).
        healed: Agreement of the first of these networks after healing.
        unit: Name of the cost.
    """
    sensitivity = [entry for entry in sensitivity if entry.is_half]
    convs = list(dict.fromkeys(entry.conv for entry in sensitivity))
    figure = new_figure(width=max(9.0, min(30.0, 3 + 0.16 * len(convs))), height=7.5)
    layers, budgets = figure.subplots(2, 1, height_ratios=(1.4, 1))
    for kind, (color, marker, label) in KIND_STYLES.items():
        damages = [(convs.index(entry.conv), entry.damage) for entry in sensitivity if entry.kind == kind]
        if damages:
            places, heights = [place for place, _ in damages], [max(damage, LEAST) for _, damage in damages]
            layers.plot(places, heights, linestyle="", color=color, marker=marker, markersize=4, label=label)
    layers.set_yscale("log")
    layers.set_ylabel("error of the output, as a share\nof its variance, with half of the maps")
    if len(convs) <= MAX_NAMES:
        layers.set_xticks(range(len(convs)), convs, rotation=90, fontsize=6)
    else:
        layers.set_xlabel("convolution, in order of execution")
    layers.legend(fontsize=8)
    points = sorted(((row["cost"], row["agreement"]) for row in curve), key=lambda point: point[0])
    _plot_agreement(budgets, points, FIRST, "fitted")
    if healed is not None:
        _plot_agreement(budgets, [(curve[0]["cost"], healed)], SECOND, "healed")
    budgets.set_xlabel(f"{unit}, % of the original's")
    budgets.set_ylabel("same class as the\noriginal, % of images")
    budgets.legend(fontsize=8)
    for axis in (layers, budgets):
        axis.grid(color=GRID, linewidth=0.6)
    return figure


def _plot_agreement(axis: Any, points: Sequence[tuple[float, Mapping[str, float]]], color: str, label: str) -> None:
    """Plot shares with their 95 % intervals."""
    costs = [100 * cost for cost, _ in points]
    shares = [100 * agreement["share"] for _, agreement in points]
    below = [100 * (agreement["share"] - agreement["low"]) for _, agreement in points]
    above = [100 * (agreement["high"] - agreement["share"]) for _, agreement in points]
    axis.errorbar(costs, shares, yerr=(below, above), color=color, marker="o", markersize=4, capsize=3, label=label)
