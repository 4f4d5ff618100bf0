"""Fields of a classifier's recipe that have an effect only together with others."""

from collections.abc import Callable
from typing import NamedTuple

from ghostnets.errors import ConfigurationError
from ghostnets.train.recipe import Recipe

__all__ = ["check_effects"]


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
