"""Fields of a recipe that have an effect only together with others, or with certain data."""

from collections.abc import Callable
from typing import NamedTuple

from ghostnets.errors import ConfigurationError
from ghostnets.train.recipe import Recipe

__all__ = ["check_effects", "describe_vain_crop"]


class Dependence(NamedTuple):
    """Fields that have an effect only in some recipes: those for which ``holds``, named by ``needed``."""

    fields: tuple[str, ...]
    holds: Callable[[Recipe], bool]
    needed: str


DEPENDENCES = (
    Dependence(("milestones", "decay_epochs", "decay_rate"), lambda r: r.schedule == "step", "with schedule step"),
    Dependence(("distill", "distill_weight", "temperature"), lambda r: r.teacher is not None, "with a teacher"),
    Dependence(("temperature",), lambda r: r.distill == "labels", "with distill labels"),
    Dependence(("randaugment_magnitude",), lambda r: r.randaugment > 0, "with randaugment"),
    Dependence(
        ("shift", "min_scale", "randaugment", "erasing", "layer_decay", "drop_path_rate"),
        lambda r: not r.frozen,
        "without frozen",
    ),
)


def check_effects(recipe: Recipe, base: Recipe) -> None:
    """Raise ConfigurationError for fields that were changed in vain.

    Args:
        recipe: The recipe.
        base: The recipe before it was changed; what it has without an effect is accepted.
    """
    changed = recipe.differences(base)
    for fields, holds, needed in DEPENDENCES:
        if not holds(recipe) and (vain := [f"{name} {changed[name]}" for name in fields if name in changed]):
            raise ConfigurationError(
                f"without effect: {', '.join(vain)} (only {needed}); omit this, or change the rest of the recipe."
            )


def describe_vain_crop(recipe: Recipe, image_size: int, *, is_shifted: bool) -> str | None:
    """A sentence on ``shift`` or ``min_scale`` without effect on the training images; None if there is nothing to say.

    Which of the two has an effect is known once the images are read, and recipes have both.

    Args:
        recipe: The recipe of a classifier.
        image_size: Side of the input in pixels.
        is_shifted: Whether all training images have the size of the input, and are shifted instead of cropped.
    """
    size = f"{image_size} x {image_size} pixels"
    if is_shifted and recipe.min_scale != Recipe.min_scale:
        return f"min_scale {recipe.min_scale:g} has no effect: the images have {size}, as the input, and are shifted"
    if not is_shifted and recipe.shift != Recipe.shift:
        return f"shift {recipe.shift} has no effect: not all images have the {size} of the input, so they are cropped"
    return None
