"""The network of a recipe and its initial weights: random, embedded, published, or from a file, which is read once."""

from typing import Any, NamedTuple

import torch

from ghostnets.checkpoints import (
    METADATA_KEY,
    Checkpoint,
    WeightsFile,
    create_model,
    detect_source,
    download,
    embedded_weights,
    find_weights,
    find_weights_at,
    load_weights,
    parse_checkpoint,
    read_weights,
)
from ghostnets.checkpoints.fetch import HUB_PREFIX
from ghostnets.compress import apply_changes
from ghostnets.data import DataSource
from ghostnets.errors import ConfigurationError
from ghostnets.files import find_checkpoint
from ghostnets.models import Network, model_arguments
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distill import split_teacher
from ghostnets.train.recipe import EMBEDDED_WEIGHTS, PRETRAINED, SMALL_IMAGE, Recipe

__all__ = [
    "InitialWeights",
    "ResolvedRecipe",
    "build_initial_network",
    "describe_initial_weights",
    "read_initial_weights",
    "resolve_recipe",
]


class InitialWeights(NamedTuple):
    """A file of weights to start training from."""

    file: WeightsFile
    checkpoint: Checkpoint | None  # the same, if it is a checkpoint of this project


class ResolvedRecipe(NamedTuple):
    """A recipe with every value resolved, and values derived from it."""

    recipe: Recipe
    arguments: dict[str, Any]  # arguments of create_model
    preprocessing: Preprocessing
    weights: InitialWeights | None  # None for random and published weights
    changes: tuple[dict[str, Any], ...]  # of compression


def read_initial_weights(recipe: Recipe) -> InitialWeights | None:
    """Read the file of the recipe's initial weights; None for random and for published weights.

    Raises:
        CheckpointError: The file cannot be read, or there are no embedded weights of the network.
    """
    name = recipe.weights
    if name is None or name == PRETRAINED:
        return None
    if name == EMBEDDED_WEIGHTS:
        file = read_weights(embedded_weights(recipe.model))
        return InitialWeights(file, parse_checkpoint(file))
    is_remote = name.startswith(HUB_PREFIX)
    file = read_weights(download(name) if is_remote else name)
    is_own = METADATA_KEY in file.metadata and not is_remote
    return InitialWeights(file, parse_checkpoint(file) if is_own else None)


def resolve_recipe(recipe: Recipe, source: DataSource) -> ResolvedRecipe:
    """Resolve the values that depend on the images and the initial weights.

    Args:
        recipe: The recipe as requested.
        source: The data set.

    Raises:
        CheckpointError: The weights cannot be read.
        ConfigurationError: The network has no such argument, or the recipe contradicts the weights.
        UnknownNameError: The network is unknown.
    """
    recipe = recipe.changed(weights=_absolute(recipe.weights), teacher=_absolute_teacher(recipe.teacher))
    weights = read_initial_weights(recipe)
    changes: tuple[dict[str, Any], ...] = ()
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
    num_classes = len(source.class_names)
    if weights is not None and weights.checkpoint is not None:
        checkpoint = weights.checkpoint
        changes = checkpoint.changes
        if ":" in checkpoint.architecture:
            raise ConfigurationError(
                f"{recipe.weights} is {checkpoint.architecture}, a network of another library, which train cannot"
                " continue; heal it with ghostnets.compress.heal, or train read_checkpoint(path).build() by your own"
                " code."
            )
        preprocessing = _adopt_preprocessing(checkpoint.preprocessing, recipe, recipe.weights)
        common = {"num_classes": num_classes, "drop_rate": recipe.drop_rate}
        kept = {name: value for name, value in checkpoint.arguments.items() if name != "drop_path_rate"}
        arguments = {**kept, **options, **common}
        if preprocessing.channels != checkpoint.preprocessing.channels:
            arguments["in_chans"] = preprocessing.channels
        recipe = recipe.changed(model=checkpoint.architecture)
    else:
        is_default = recipe.weights == PRETRAINED
        published = find_weights(recipe.model) if is_default else find_weights_at(recipe.model, recipe.weights)
        if published is not None:
            preprocessing = _adopt_preprocessing(published.preprocessing, recipe, f"the published {recipe.model}")
        else:
            typical_size = source.typical_size
            size = recipe.image_size or (typical_size if typical_size <= SMALL_IMAGE else 224)
            preprocessing = Preprocessing.standard(size, recipe.in_chans or (3 if recipe.weights else source.channels))
        arguments = {"num_classes": num_classes, "in_chans": preprocessing.channels, "drop_rate": recipe.drop_rate}
        is_small = preprocessing.image_size <= SMALL_IMAGE
        if is_small and not recipe.weights and "small_input" in model_arguments(recipe.model):
            arguments["small_input"] = True
        arguments |= options
    with torch.device("cpu" if changes else "meta"):  # an unknown name or argument fails before a folder is made
        apply_changes(create_model(recipe.model, **arguments), changes)
    recipe = recipe.changed(image_size=preprocessing.image_size, in_chans=preprocessing.channels)
    return ResolvedRecipe(recipe, arguments, preprocessing, weights, changes)


def build_initial_network(
    recipe: Recipe,
    arguments: dict[str, Any],
    weights: InitialWeights | None,
    class_names: tuple[str, ...],
    *,
    changes: tuple[dict[str, Any], ...] = (),
    multi_label: bool = False,
) -> Network:
    """Build the network with its initial weights, in training mode.

    The classifier of a checkpoint of this project is kept if its classes are those of the data and both are, or are
    not, multi-label; otherwise it is new.

    Raises:
        CheckpointError: Published weights cannot be downloaded, or the weights do not fit.
    """
    model = create_model(recipe.model, pretrained=recipe.weights == PRETRAINED, **arguments)
    model = apply_changes(model, changes) if changes else model
    assert isinstance(model, Network)
    if weights is not None:
        own = weights.checkpoint
        source = detect_source(weights.file.tensors) if own is None else "canonical"
        has_same_classes = own is not None and (own.class_names, own.multi_label) == (class_names, multi_label)
        load_weights(model, weights.file, source=source, replace_head=not has_same_classes)
    return model.train()


def describe_initial_weights(recipe: Recipe) -> str:
    """A sentence for the user: where training starts, and how to choose another start."""
    if recipe.weights is None:
        return f"training {recipe.model} from scratch, with random weights"
    if recipe.weights == EMBEDDED_WEIGHTS:
        return f"training {recipe.model} from the weights that come with the package (from scratch: --weights none)"
    if recipe.weights == PRETRAINED:
        return f"training {recipe.model} from published weights"
    return f"training from {recipe.weights}"  # a checkpoint has its own network


def _adopt_preprocessing(trained: Preprocessing, recipe: Recipe, source: str | None) -> Preprocessing:
    """Return the preprocessing of given weights, with the recipe's image size and, if it asks for it, grayscale.

    The stem of RGB weights is summed over its channels when they are loaded (``checkpoints.fit``).
    """
    if recipe.in_chans == 1 != trained.channels:
        trained = trained.as_grayscale()
    elif recipe.in_chans not in (None, trained.channels):
        raise ConfigurationError(
            f"in_chans is {recipe.in_chans}, but the network of {source} takes {trained.channels}; omit --in-chans."
        )
    return trained.with_image_size(recipe.image_size or trained.image_size)


def _absolute(name: str | None) -> str | None:
    """Return the path of a file made absolute, so that a run can be resumed from any folder; any other name as it is.

    The folder of a run becomes its checkpoint; a folder that is named like weights, such as "pretrained", is not meant.
    """
    path = find_checkpoint(name) if name and name not in (PRETRAINED, EMBEDDED_WEIGHTS) else None
    return str(path.resolve()) if path is not None and path.is_file() else name


def _absolute_teacher(name: str | None) -> str | None:
    """Return the name of a teacher with the path of a file in it made absolute."""
    network, file = split_teacher(name or "")
    return f"{network}={_absolute(file)}" if network else _absolute(name)
