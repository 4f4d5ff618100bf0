"""How to train: one frozen dataclass, and the named recipes as instances of it."""

from dataclasses import dataclass, replace
from typing import Any

from ghostnets.errors import ConfigurationError, UnknownNameError

__all__ = ["RECIPES", "SMALL_IMAGE", "Recipe", "named_recipe", "recipe_for"]

SMALL_IMAGE = 64  # pixels: up to this size a network that can keeps more of the resolution (``small_input``)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, besides the images.

    SGD with Nesterov momentum 0.9 under a one-cycle learning rate (Smith, Topin, arXiv 1708.07120): up along a line
    over the first part of the run, then down to zero along a cosine. Weight decay acts on the weights of convolutions
    and linear layers alone.

    Attributes:
        model: Name of the network; ``ghostnets list`` tells them.
        width: Width multiplier instead of the model's own.
        image_size: Side of the input in pixels; by default that of the images up to 64, else 224.
        in_chans: 1 for grey, 3 for colour; by default 1 where all images are grey.
        epochs: Times each training image is seen.
        batch_size: Images a step.
        lr: Learning rate at its peak.
        warmup: Share of the run in which the learning rate rises.
        weight_decay: Of convolutions and linear layers.
        label_smoothing: Share of the target spread over all classes.
        drop_rate: Dropout before the classifier.
        shift: Images that have the input's size: random shift by up to so many pixels.
        min_scale: All others: smallest share of the area that a random crop keeps.
        flip: Mirror half of the training images.
        val_share: Share of each class kept back for validation where the data has no such part.
        seed: Of the weights, the order, the augmentation and the split.
    """

    model: str = "ghostnet_100"
    width: float | None = None
    image_size: int | None = None
    in_chans: int | None = None
    epochs: int = 30
    batch_size: int = 32
    lr: float = 0.05
    warmup: float = 0.25
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    drop_rate: float = 0.2
    shift: int = 1
    min_scale: float = 0.35
    flip: bool = True
    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "width": (self.width is None or self.width > 0, "above 0"),
            "image_size": (self.image_size is None or 8 <= self.image_size <= 2048, "from 8 to 2048"),
            "in_chans": (self.in_chans in (None, 1, 3), "1 or 3"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2, for batch normalisation"),
            "lr": (self.lr > 0, "above 0"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "drop_rate": (0 <= self.drop_rate < 1, "in [0, 1)"),
            "shift": (self.shift >= 0, "at least 0"),
            "min_scale": (0 < self.min_scale <= 1, "in (0, 1]"),
            "val_share": (0 < self.val_share < 1, "between 0 and 1"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        if wrong := [
            f"{name} is {getattr(self, name)}, wanted {want}" for name, (ok, want) in limits.items() if not ok
        ]:
            raise ConfigurationError(f"the recipe cannot be used: {'; '.join(wrong)}.")

    def changed(self, **values: Any) -> "Recipe":
        """A copy with other values; raises ConfigurationError for a name that is no field."""
        if unknown := sorted(values.keys() - self.__dataclass_fields__.keys()):
            raise ConfigurationError(
                f"a recipe has no {', '.join(unknown)}; it has {', '.join(self.__dataclass_fields__)}."
            )
        return replace(self, **values)


RECIPES: dict[str, Recipe] = {
    # Photographs from scratch: a default to start from, not a published schedule.
    "photos": Recipe(),
    # Images of up to 64 pixels. On the embedded Fashion-MNIST subset: see README for the measured accuracy and time.
    "small-images": Recipe(model="ghostnet_050", epochs=12, batch_size=64, lr=0.1, label_smoothing=0.0, drop_rate=0.0),
}


def named_recipe(name: str) -> Recipe:
    """A recipe of the table.

    Raises:
        UnknownNameError: There is none of this name.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_for(typical_size: int) -> str:
    """Name of the recipe for images of this shorter side, in pixels."""
    return "small-images" if typical_size <= SMALL_IMAGE else "photos"
