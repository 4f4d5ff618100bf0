"""Does a Ghost network need its ghosts? Accuracy when those of one layer are replaced by copies, or by nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostnets.explain.ghosts import count_ghosts, disable_ghosts, find_ghost_modules

__all__ = ["AblationResult", "LayerAblation", "measure_ghost_ablation"]

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class LayerAblation:
    """One Ghost module whose ghosts were replaced, all others as they are: top-1 accuracy in [0, 1].

    Attributes:
        layer: Name of the module.
        ghosts: Number of maps that were replaced.
        copies: With a copy of its intrinsic map in the place of each ghost.
        zeros: With zeros in the place of each ghost.
    """

    layer: str
    ghosts: int
    copies: float
    zeros: float


@dataclass(frozen=True)
class AblationResult:
    """Attributes:
    images: Number of labelled images.
    top1: Accuracy of the network as it is, in [0, 1].
    layers: One entry for each Ghost module with ghosts, in the network's order.
    """

    images: int
    top1: float
    layers: tuple[LayerAblation, ...]


@torch.inference_mode()
def measure_ghost_ablation(
    model: nn.Module, batches: Batches, *, on_layer: Callable[[], None] = lambda: None
) -> AblationResult:
    """Measures the accuracy twice for each Ghost module, and once without a change.

    Nothing is trained again, and the normalisation behind stays as it is: what is measured is how much this network
    relies on its ghosts, not how well one without them could do.

    Args:
        model: A network with Ghost modules, in evaluation mode; it is left as it was.
        batches: Gives the images anew at each call: (N, C, H, W) ready for the network, and labels int64 (N,).
        on_layer: Called after each module.
    """
    images, right = _count_right(model, batches)
    layers = []
    for name, module in find_ghost_modules(model).items():
        shares = []
        for fill in ("copies", "zeros"):
            with disable_ghosts(model, {name: None}, fill=fill):
                shares.append(_count_right(model, batches)[1] / images)
        layers.append(LayerAblation(name, count_ghosts(module), *shares))
        on_layer()
    return AblationResult(images, right / images, tuple(layers))


def _count_right(model: nn.Module, batches: Batches) -> tuple[int, int]:
    images = right = 0
    for x, labels in batches():
        images += len(labels)
        right += int((model(x).argmax(1) == labels).sum())
    return images, right
