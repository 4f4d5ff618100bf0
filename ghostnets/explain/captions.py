"""Captions of the figures, computed from the numbers that they show."""

from collections import Counter
from collections.abc import Sequence

from ghostnets.explain.anatomy import CheapKernels
from ghostnets.explain.ghost_ablation import AblationResult
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy
from ghostnets.measure import format_accuracy, wilson_interval
from ghostnets.terminal import format_count

__all__ = ["ablation_caption", "depth_caption", "error_caption", "gallery_caption", "kernel_kinds_caption"]

MIN_PIXELS = 20 * 50  # per map, over all images: 20 per parameter of a 7 x 7 filter, to avoid overfitting


def depth_caption(redundancy: Redundancy) -> str:
    """Caption of ``depth_figure``."""
    most = max(redundancy.layers, key=lambda layer: layer.duplicates_90)
    number = redundancy.layers.index(most) + 1
    majority = [layer for layer in redundancy.layers if layer.duplicates_90 > 0.5]
    above_90 = redundancy.mean(lambda layer: layer.duplicates_90)
    above_95 = redundancy.mean(lambda layer: layer.duplicates_95)
    return (
        f"{above_90:.1%} of all maps have a near-duplicate (cosine above 0.9), {above_95:.1%} at a threshold of 0.95."
        f" The share is largest in layer {number} ({most.layer}): {most.duplicates_90:.0%}."
        f" It exceeds half of the maps in {len(majority)} of {len(redundancy.layers)} layers."
    )


def error_caption(redundancy: Redundancy) -> str:
    """Caption of ``error_figure``."""
    errors = {d: _mean_error(redundancy, d) for d in (1, 3, 7)}
    small = sum(redundancy.images * layer.size[0] * layer.size[1] < MIN_PIXELS for layer in redundancy.layers)
    caution = f" {small} layers have too few pixels for reliable fits: use more images." if small else ""
    return (
        f"With half of the maps kept, a single 1 x 1 filter leaves {errors[1]:.0%} of the variance of the other maps"
        f" unexplained (mean over all ghosts), 3 x 3 leaves {errors[3]:.0%}, 7 x 7 leaves {errors[7]:.0%}. Where a line"
        f" is flat, larger filters do not help.{caution}"
    )


def gallery_caption(layer: LayerRedundancy) -> str:
    """Caption of ``gallery_figure``."""
    pairs = ", ".join(f"{letter} {cosine:+.2f}" for letter, (_, _, cosine) in zip("ABCDEF", layer.pairs, strict=False))
    return (
        f"Boxes with the same letter mark the most similar pairs of the layer; cosine over all images: {pairs}."
        f" {layer.duplicates_90:.0%} of the maps of this layer have a near-duplicate (cosine above 0.9)."
    )


def kernel_kinds_caption(kernels: Sequence[CheapKernels]) -> str:
    """Caption of ``kernel_kinds_figure``."""
    counts = Counter(kind for layer in kernels for kind in layer.kinds())
    shares = ", ".join(f"{count / counts.total():.0%} {kind}" for kind, count in counts.most_common())
    return f"{counts.total():,} cheap kernels: {shares}."


def ablation_caption(result: AblationResult) -> str:
    """Caption of ``ablation_figure``."""
    worst = min(result.layers, key=lambda layer: layer.zeros)
    change = {
        fill: 100 * (sum(getattr(layer, fill) for layer in result.layers) / len(result.layers) - result.top1)
        for fill in ("copies", "zeros")
    }
    correct = round(result.top1 * result.images)
    low, _ = wilson_interval(correct, result.images)
    caution = " All of this is within the interval: use more images." if worst.zeros >= low else ""
    return (
        f"The unchanged network classifies {format_accuracy(correct, result.images)} of"
        f" {format_count(result.images, 'image')}"
        f" correctly; in parentheses the 95% interval. Copies in one module change the accuracy by"
        f" {change['copies']:+.1f} points on average, zeros by {change['zeros']:+.1f}. It is lowest with zeros in"
        f" {worst.layer}: {worst.zeros:.1%}.{caution}"
    )


def _mean_error(redundancy: Redundancy, d: int) -> float:
    """Average the unexplained variance at filter size d over all ghosts of all layers; nan without ghosts."""
    layers = [layer for layer in redundancy.layers if layer.ghosts]
    ghosts = sum(len(layer.ghosts) for layer in layers)
    return sum(len(layer.ghosts) * layer.errors[d] for layer in layers) / ghosts if ghosts else float("nan")
