"""Ghost ablation: accuracy of a network when the ghosts of one module are replaced by copies or zeros."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostnets.explain.ghosts import count_ghosts, disable_ghosts, find_ghost_modules

__all__ = ["AblationResult", "LayerAblation", "measure_ghost_ablation"]

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class LayerAblation:
    """Top-1 accuracy in [0, 1] with the ghosts of one module replaced.

    Attributes:
        layer: Name of the module.
        ghosts: Number of replaced maps.
        copies: Accuracy with each ghost replaced by a copy of its intrinsic map.
        zeros: Accuracy with each ghost replaced by zeros.
    """

    layer: str
    ghosts: int
    copies: float
    zeros: float


@dataclass(frozen=True)
class AblationResult:
    """Ghost ablation of a network.

    Attributes:
        images: Number of labelled images.
        top1: Accuracy of the unchanged network, in [0, 1].
        layers: One entry for each Ghost module with ghosts, in network order.
    """

    images: int
    top1: float
    layers: tuple[LayerAblation, ...]


@torch.inference_mode()
def measure_ghost_ablation(
    model: nn.Module, batches: Batches, *, on_layer: Callable[[], None] = lambda: None
) -> AblationResult:
    """Measure the accuracy of the unchanged network, and with the ghosts of one Ghost module at a time replaced.

    The network is not retrained or recalibrated: the result shows how much this network relies on its ghosts, not how
    accurate a network without them could be.

    Args:
        model: A network with Ghost modules, in evaluation mode; left unchanged.
        batches: Returns a fresh iterable of (preprocessed images (N, C, H, W), labels int64 (N,)) at each call.
        on_layer: Called after each module.
    """
    images, correct = _count_correct(model, batches)
    layers = []
    for name, module in find_ghost_modules(model).items():
        accuracies = []
        for fill in ("copies", "zeros"):
            with disable_ghosts(model, {name: None}, fill=fill):
                accuracies.append(_count_correct(model, batches)[1] / images)
        layers.append(LayerAblation(name, count_ghosts(module), *accuracies))
        on_layer()
    return AblationResult(images, correct / images, tuple(layers))


def _count_correct(model: nn.Module, batches: Batches) -> tuple[int, int]:
    images = correct = 0
    for x, labels in batches():
        images += len(labels)
        correct += int((model(x).argmax(1) == labels).sum())
    return images, correct
