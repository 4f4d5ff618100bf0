"""Matplotlib figures and images shared by the pages, and their conversion to SVG and PNG."""

import io
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from ghostnets.errors import ConfigurationError, require
from ghostnets.explain.confusion import count_matrix, select_classes
from ghostnets.explain.fonts import drawable_labels, find_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIRST",
    "GRID",
    "INK",
    "SECOND",
    "check_figure_suffix",
    "confusion_figure",
    "curves_figure",
    "heat_png",
    "learning_rate_figure",
    "map_colors",
    "map_png",
    "new_figure",
    "pixels_png",
    "save_figure",
    "style_axis",
    "to_svg",
]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
INK, GRID, FIRST, SECOND = "#7a7f87", "#7a7f8755", "#2f81c4", "#e07a2f"


def curves_figure(epochs: Sequence[int], curves: dict[str, tuple[Sequence[float], Sequence[float]]]) -> "Figure":
    """Plot training and validation curves over the epochs, one panel per metric.

    Args:
        epochs: Epoch numbers.
        curves: Label of the y axis -> (training values, which may be empty, and validation values).
    """
    figure = new_figure(width=max(9.0, 4.0 * len(curves)), height=3.4)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    marker = "o" if len(epochs) <= 30 else ""
    for axis, (label, (training, validation)) in zip(axes, curves.items(), strict=True):
        if training:
            axis.plot(epochs, training, color=SECOND, marker=marker, markersize=3.5, label="training (augmented)")
        axis.plot(epochs, validation, color=FIRST, marker=marker, markersize=3.5, label="validation")
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # one epoch is one tick
        axis.grid(color=GRID, linewidth=0.6)
        axis.legend(frameon=False, labelcolor=INK, fontsize=9)
        style_axis(axis)
    return figure


def confusion_figure(cells: Sequence[tuple[int, int, int]], class_names: Sequence[str]) -> "Figure":
    """Plot the confusion matrix: rows are true classes, columns predicted classes, shades are shares of the row.

    With many classes, only those confused most often are shown (``select_classes``). A class whose name cannot be
    drawn is labelled with its number, from 1 (``drawable_labels``).

    Args:
        cells: True class, predicted class and number of images; cells that are zero may be left out.
        class_names: Names of all classes.
    """
    shown = select_classes(cells, len(class_names))
    counts, share = count_matrix(cells, shown)
    side = min(14.0, 2.6 + 0.5 * len(shown))
    figure = new_figure(width=side + 1.0, height=side)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    fonts = find_fonts()
    labels = drawable_labels([class_names[i] for i in shown], [i + 1 for i in shown], fonts)
    text: dict[str, Any] = {"parse_math": False, "fontfamily": fonts}
    axis.set_xticks(range(len(shown)), labels, rotation=45, ha="right", rotation_mode="anchor", **text)
    axis.set_yticks(range(len(shown)), labels, **text)
    for row, column in np.argwhere(counts).tolist():
        color = "white" if share[row, column] > 0.5 else "#1c2a38"
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8.5)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    if len(shown) < len(class_names):
        axis.set_title(f"the {len(shown)} of {len(class_names):,} classes confused most often", fontsize=9, color=INK)
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class", color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_visible(False)
    style_axis(axis)
    return figure


def learning_rate_figure(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> "Figure":
    """Plot the loss of a range test over the learning rate, with the suggested rate marked.

    Args:
        rates: Learning rates, ascending.
        losses: Loss at each learning rate.
        suggestion: The suggested rate.
    """
    figure = new_figure(width=6.4, height=4.0)
    axis = figure.subplots()
    axis.plot(rates, losses, color=FIRST)
    axis.axvline(suggestion, color=SECOND, linestyle="--", label=f"suggestion: {suggestion:g}")
    axis.set_xscale("log")
    axis.set_xlabel("learning rate")
    axis.set_ylabel("training loss (nats, moving average)")
    axis.grid(color=GRID, linewidth=0.6)
    axis.legend(frameon=False, labelcolor=INK, fontsize=9)
    style_axis(axis)
    return figure


def to_svg(figure: "Figure", *, title: str, prefix: str) -> str:
    """Convert a figure to an inline ``<svg>`` with an accessible name.

    Args:
        figure: Figure drawn with ``style_axis`` colours.
        title: Accessible name, read by screen readers.
        prefix: Prefix of the ids inside the SVG, unique among the figures of a page.
    """
    buffer = io.StringIO()
    with require("matplotlib", extra="explain").rc_context({"svg.hashsalt": prefix}):  # reproducible ids
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(INK, "currentColor")  # so that it follows the page's light or dark theme
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def check_figure_suffix(suffix: str) -> None:
    """Raise ConfigurationError if figures cannot be saved with this suffix."""
    if suffix.lower() not in FIGURE_SUFFIXES:
        raise ConfigurationError(f"a figure cannot be saved as {suffix!r}; choose {', '.join(FIGURE_SUFFIXES)}.")


def save_figure(figure: "Figure", path: str | os.PathLike[str], suffix: str) -> None:
    """Save a figure on a white background.

    Args:
        figure: The figure.
        path: Output path.
        suffix: Format: ``".png"``, ``".svg"`` or ``".pdf"``.

    Raises:
        ConfigurationError: Unsupported format.
    """
    check_figure_suffix(suffix)
    figure.savefig(path, format=suffix.lower()[1:], facecolor="white", dpi=150)


def map_colors(feature_map: Tensor) -> np.ndarray:
    """Colour a feature map (H, W), scaled to its own range: uint8 (H, W, 3), dark is low, bright is high."""
    colors = require("matplotlib", extra="explain").colormaps["viridis"]
    values = feature_map.float().numpy()
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return (colors(scaled)[..., :3] * 255).astype(np.uint8)


def map_png(feature_map: Tensor) -> bytes:
    """Encode a feature map (H, W) as a PNG, coloured by ``map_colors``."""
    return _png(Image.fromarray(map_colors(feature_map)))


def heat_png(pixels: Tensor, heat: Tensor) -> bytes:
    """Overlay a heat map (H, W) in [0, 1] on an image uint8 (1 or 3, H, W) in grayscale, as a PNG."""
    colors = require("matplotlib", extra="explain").colormaps["inferno"]
    grey = pixels.float().mean(0).numpy()[..., None] / 255
    weight = heat.numpy()[..., None]
    mixed = (1 - weight) * 0.8 * grey + weight * (0.35 * grey + 0.65 * colors(heat.numpy())[..., :3])
    return _png(Image.fromarray((mixed * 255).astype(np.uint8)))


def pixels_png(pixels: Tensor) -> bytes:
    """Encode an image uint8 (1 or 3, H, W) as a PNG."""
    array = pixels.numpy()
    return _png(Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def new_figure(*, width: float, height: float) -> "Figure":
    """Create an empty figure with constrained layout, sizes in inches."""
    require("matplotlib.figure", extra="explain")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style_axis(axis: Any) -> None:
    """Draw labels, ticks and spines in colours that ``to_svg`` adapts to the page's theme."""
    axis.tick_params(colors=INK)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)
    for spine in axis.spines.values():
        spine.set_color(GRID)
