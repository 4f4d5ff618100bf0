"""Images and targets blended in pairs: mixup and cutmix."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from ghostnets.train.recipe import Recipe

__all__ = ["Mixing", "mixing"]

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(recipe: Recipe, num_classes: int) -> Mixing | None:
    """Pixels (N, C, H, W) as floats and labels int64 (N,) -> mixed pixels and targets float (N, num_classes).

    torchvision's, which pair each image with its neighbour in the batch. They draw from torch's global generator, which
    is seeded for each step. None where the recipe has neither.
    """
    kinds: list[v2.MixUp | v2.CutMix] = []
    if recipe.mixup:
        kinds.append(v2.MixUp(alpha=recipe.mixup, num_classes=num_classes))
    if recipe.cutmix:
        kinds.append(v2.CutMix(alpha=recipe.cutmix, num_classes=num_classes))
    if not kinds:
        return None

    def mix(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kind = kinds[int(torch.randint(len(kinds), ()))]
        mixed: tuple[Tensor, Tensor] = kind(pixels, labels)
        return mixed

    return mix
