"""Mixup and cutmix of a batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from ghostnets.train.recipe import Recipe

__all__ = ["Mixing", "build_mixing"]

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def build_mixing(recipe: Recipe, num_classes: int) -> Mixing | None:
    """Build the mixing of a recipe; None if it has neither mixup nor cutmix.

    The result maps float pixels (N, C, H, W) and labels, int64 (N,) or of multi-label data float32 (N, num_classes), to
    mixed pixels and targets float (N, num_classes).
    It is torchvision's, which pairs each image with its neighbour in the batch and draws from torch's global generator,
    which is seeded at each step.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    from torchvision.transforms import v2

    kinds: list[v2.MixUp | v2.CutMix] = []
    if recipe.mixup:
        kinds.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix:
        kinds.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))

    def mix(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kind = kinds[int(torch.randint(len(kinds), ()))]
        mixed: tuple[Tensor, Tensor] = kind(pixels, labels)
        return mixed

    return mix
