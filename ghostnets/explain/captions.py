"""One sentence of what to see in each figure, from the numbers that it shows."""

from collections import Counter
from collections.abc import Sequence

from ghostnets.explain.anatomy import CheapKernels
from ghostnets.explain.ghost_ablation import AblationResult
from ghostnets.explain.redundancy import LayerRedundancy, Redundancy

__all__ = ["ablation", "depth", "error", "gallery", "kernel_kinds"]

ENOUGH_PIXELS = 20 * 50  # of a map in all images: twenty for each weight of a 7 x 7 filter, which fits fewer by chance


def depth(redundancy: Redundancy) -> str:
    """For ``depth_figure``."""
    most = max(redundancy.layers, key=lambda layer: layer.twins_90)
    number = redundancy.layers.index(most) + 1
    half = [layer for layer in redundancy.layers if layer.twins_90 > 0.5]
    shares = [redundancy.mean(share) for share in (lambda layer: layer.twins_90, lambda layer: layer.twins_95)]
    return (
        f"{shares[0]:.1%} of all maps have a twin above 0.9 and {shares[1]:.1%} above 0.95; most of them in layer"
        f" {number} ({most.layer}), where it is {most.twins_90:.0%}; in {len(half)} of {len(redundancy.layers)} layers"
        " more than half of the maps have one."
    )


def error(redundancy: Redundancy) -> str:
    """For ``error_figure``."""
    left = {d: ghost_mean(redundancy, d) for d in (1, 3, 7)}
    small = sum(redundancy.images * layer.size[0] * layer.size[1] < ENOUGH_PIXELS for layer in redundancy.layers)
    caution = f" In {small} layers the maps have too few pixels: more images are needed there." if small else ""
    return (
        f"With half of the maps kept, a single 1 x 1 filter leaves {left[1]:.0%} of the variance of the others, on"
        f" average over all ghosts; 3 x 3 leaves {left[3]:.0%}, 7 x 7 leaves {left[7]:.0%}: where a line is flat, a"
        f" larger filter does not help.{caution}"
    )


def gallery(layer: LayerRedundancy) -> str:
    """For ``gallery_figure``."""
    shown = layer.pairs[:6]
    pairs = ", ".join(f"{letter} {cosine:+.2f}" for letter, (_, _, cosine) in zip("ABCDEF", shown, strict=False))
    return (
        f"Boxes with the same letter are the most similar pairs of the layer; cosine over all images: {pairs}."
        f" In this layer {layer.twins_90:.0%} of the maps have a twin above 0.9."
    )


def kernel_kinds(kernels: Sequence[CheapKernels]) -> str:
    """For ``kernel_kinds_figure``."""
    counts = Counter(kind for layer in kernels for kind in layer.kinds())
    shares = ", ".join(f"{count / counts.total():.0%} {kind}" for kind, count in counts.most_common())
    return f"Of {counts.total():,} cheap kernels: {shares}."


def ablation(result: AblationResult) -> str:
    """For ``ablation_figure``."""
    worst = min(result.layers, key=lambda layer: layer.zeros)
    lost = {
        name: result.top1 - sum(getattr(layer, name) for layer in result.layers) / len(result.layers)
        for name in ("copies", "zeros")
    }
    return (
        f"As it is the network gets {result.top1:.1%} of {result.images:,} images right; copies in one module cost"
        f" {100 * lost['copies']:.1f} points on average, zeros {100 * lost['zeros']:.1f}; zeros hurt most in"
        f" {worst.layer}, where {worst.zeros:.1%} remain."
    )


def ghost_mean(redundancy: Redundancy, d: int) -> float:
    """The variance that d x d filters leave, as the mean over all ghosts of all layers; nan without any."""
    layers = [layer for layer in redundancy.layers if layer.ghosts]
    ghosts = sum(len(layer.ghosts) for layer in layers)
    return sum(len(layer.ghosts) * layer.errors[d] for layer in layers) / ghosts if ghosts else float("nan")
