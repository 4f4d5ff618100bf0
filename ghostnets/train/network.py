"""The network that a recipe begins with: random, published, or of an earlier run."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ghostnets.checkpoints import (
    METADATA_KEY,
    Checkpoint,
    create_model,
    find_weights,
    load_checkpoint,
    load_weights,
    read_checkpoint,
    read_weights,
)
from ghostnets.checkpoints.fetch import HUB_PREFIX
from ghostnets.errors import ConfigurationError
from ghostnets.models import Network, model_arguments
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.recipe import SMALL_IMAGE, Recipe

__all__ = ["PRETRAINED", "ResolvedRecipe", "build_network", "resolve"]

PRETRAINED = "pretrained"


class ResolvedRecipe(NamedTuple):
    """A recipe with every value resolved, and what follows from it."""

    recipe: Recipe
    arguments: dict[str, Any]  # of create_model
    preprocessing: Preprocessing


def resolve(recipe: Recipe, *, typical_size: int, channels: int, num_classes: int) -> ResolvedRecipe:
    """Fills in what the images and the weights decide.

    Args:
        recipe: As asked for.
        typical_size: Usual shorter side of the images in pixels.
        channels: 1 where all are grey, else 3.
        num_classes: Of the data.

    Raises:
        CheckpointError: The weights cannot be read.
        ConfigurationError: The network has no such argument, or the recipe and the weights contradict each other.
        UnknownNameError: There is no such network.
    """
    recipe = recipe.changed(weights=_absolute(recipe.weights), teacher=_absolute(recipe.teacher))
    options = {
        name: value
        for name, value in [
            ("width", recipe.width),
            ("ratio", recipe.ratio),
            ("cheap_kernel_size", recipe.cheap_kernel_size),
            ("drop_path_rate", recipe.drop_path_rate or None),
        ]
        if value is not None
    }
    common = {"num_classes": num_classes, "drop_rate": recipe.drop_rate}
    if (checkpoint := _own_checkpoint(recipe.weights)) is not None:
        preprocessing = _adopted(checkpoint.preprocessing, recipe, recipe.weights)
        arguments = {**checkpoint.arguments, **options, **common}
        recipe = recipe.changed(model=checkpoint.architecture)
    elif recipe.weights == PRETRAINED:
        preprocessing = _adopted(find_weights(recipe.model).preprocessing, recipe, f"the published {recipe.model}")
        arguments = {
            "num_classes": num_classes,
            "in_chans": preprocessing.channels,
            "drop_rate": recipe.drop_rate,
            **options,
        }
    else:
        size = recipe.image_size or (typical_size if typical_size <= SMALL_IMAGE else 224)
        in_chans = recipe.in_chans or (3 if recipe.weights else channels)
        preprocessing = Preprocessing.standard(size, in_chans)
        arguments = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": recipe.drop_rate}
        if size <= SMALL_IMAGE and not recipe.weights and "small_input" in model_arguments(recipe.model):
            arguments["small_input"] = True
        arguments |= options
    with torch.device("meta"):  # a name or argument that does not exist shows before a folder is made
        create_model(recipe.model, **arguments)
    recipe = recipe.changed(image_size=preprocessing.image_size, in_chans=preprocessing.channels)
    return ResolvedRecipe(recipe, arguments, preprocessing)


def _adopted(trained: Preprocessing, recipe: Recipe, source: str | None) -> Preprocessing:
    """The preprocessing that goes with given weights, at the image size of the recipe where it has one."""
    if recipe.in_chans not in (None, trained.channels):
        raise ConfigurationError(
            f"in_chans is {recipe.in_chans}, but the network of {source} takes {trained.channels};"
            " leave --in-chans out."
        )
    return trained.with_image_size(recipe.image_size or trained.image_size)


def build_network(recipe: Recipe, arguments: dict[str, Any], class_names: tuple[str, ...]) -> Network:
    """The network with the weights that training begins with, in training mode.

    The classifier of a checkpoint of this project is kept where it knows the very classes of the data, else it is new.

    Raises:
        CheckpointError: The weights cannot be had, or do not fit.
    """
    model = create_model(recipe.model, pretrained=recipe.weights == PRETRAINED, **arguments)
    assert isinstance(model, Network)
    if recipe.weights not in (None, PRETRAINED):
        assert recipe.weights is not None
        if (own := _own_checkpoint(recipe.weights)) is None:
            load_checkpoint(model, recipe.weights, replace_head=True)
        else:
            has_same_classes = own.class_names == class_names
            load_weights(model, read_weights(recipe.weights), source="canonical", replace_head=not has_same_classes)
    return model.train()


def _absolute(name: str | None) -> str | None:
    """The same with the absolute path of a file that is named in it, so that a run can be resumed from anywhere."""
    before, sign, file = (name or "").rpartition("=")
    return f"{before}{sign}{Path(file).resolve()}" if file and Path(file).exists() else name


def _own_checkpoint(weights: str | None) -> Checkpoint | None:
    """The checkpoint of this project that the recipe begins with, or None where it begins with something else."""
    if weights is None or weights == PRETRAINED or weights.startswith(HUB_PREFIX):
        return None
    return read_checkpoint(weights) if METADATA_KEY in read_weights(weights).metadata else None
