"""The segmentation network of a recipe and its initial weights: random, of an embedded backbone, or a trained one's."""

from typing import Any

import torch

from ghostnets.checkpoints import EMBEDDED_WEIGHTS, Checkpoint, create_model, read_checkpoint
from ghostnets.data import DataSource
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.files import find_checkpoint
from ghostnets.models import Backbone
from ghostnets.models.segmentation import SEGMENTERS, SegmentationNetwork, create_segmenter
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.detection.network import NEUTRAL
from ghostnets.train.recipe import AUTO_WEIGHTS, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED

__all__ = ["build_initial_segmenter", "check_segmentation", "resolve_segmenter"]

IMAGE_SIZE = 384
ALLOWED = ("label_smoothing",)  # fields that detectors do not have


def check_segmentation(recipe: Recipe) -> None:
    """Raise ConfigurationError if a recipe has what training of segmentation networks does not."""
    neutral = {name: value for name, value in NEUTRAL.items() if name not in ALLOWED}
    wrong = [f"{name} {getattr(recipe, name)}" for name, value in neutral.items() if getattr(recipe, name) != value]
    if recipe.in_chans not in (None, 3):
        wrong.append(f"in_chans {recipe.in_chans}")
    if wrong:
        raise ConfigurationError(
            f"segmentation networks are trained without {', '.join(wrong)}; omit these options, or start from --recipe"
            " segment."
        )
    if recipe.model not in SEGMENTERS:
        raise ConfigurationError(
            f"{recipe.model} is no segmentation network; choose --model {', '.join(sorted(SEGMENTERS))}, or --task"
            " classify."
        )


def resolve_segmenter(recipe: Recipe, source: DataSource) -> tuple[Recipe, dict[str, Any], Preprocessing]:
    """Resolve the recipe, the arguments of ``create_segmenter`` and the preprocessing.

    Raises:
        CheckpointError: The weights cannot be read, or are not a segmentation network's.
        ConfigurationError: The recipe does not fit a segmentation network.
    """
    arguments: dict[str, Any] = {}
    size = recipe.image_size or IMAGE_SIZE
    if recipe.weights not in (None, EMBEDDED, AUTO_WEIGHTS):
        checkpoint = _read_segmenter(recipe.weights)
        recipe = recipe.changed(model=checkpoint.architecture, weights=str(find_checkpoint(recipe.weights).resolve()))
        arguments, size = dict(checkpoint.arguments), recipe.image_size or checkpoint.preprocessing.image_size
        if checkpoint.preprocessing.fit != "stretch":
            raise ConfigurationError(
                f"{recipe.weights} takes letterboxed images, and segmentation networks are trained on stretched ones;"
                " start from another one."
            )
    preprocessing = Preprocessing(size, size, fit="stretch")
    check_segmentation(recipe)
    arguments["num_classes"] = len(source.class_names)
    with torch.device("meta"):
        create_segmenter(recipe.model, **arguments)
    return recipe.changed(image_size=size, in_chans=3), arguments, preprocessing


def build_initial_segmenter(
    recipe: Recipe, arguments: dict[str, Any], class_names: tuple[str, ...]
) -> SegmentationNetwork:
    """Build the network with its initial weights, in training mode.

    Of a network with other classes everything is kept except the layers whose shape depends on their number.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    network = create_segmenter(recipe.model, **arguments)
    if recipe.weights is None:
        return network
    if recipe.weights == EMBEDDED:
        name = arguments.get("backbone") or SEGMENTERS[recipe.model].backbone
        if name not in EMBEDDED_WEIGHTS:
            raise CheckpointError(f"no weights of {name} come with the package; pass --weights none, or a network.")
        assert isinstance(network.backbone, Backbone)
        indices = network.backbone.out_indices
        trained = create_model(name, pretrained="embedded", features_only=True, out_indices=indices)
        network.backbone.load_state_dict(trained.state_dict())
        return network
    checkpoint = _read_segmenter(recipe.weights)
    weights = dict(checkpoint.state_dict)
    if checkpoint.class_names != class_names:
        own, last = network.state_dict(), network.classifier_names
        weights = {name: own[name] if name.rpartition(".")[0] in last else value for name, value in weights.items()}
    network.load_state_dict(weights)
    return network


def _read_segmenter(location: str) -> Checkpoint:
    if not find_checkpoint(location).exists():
        raise CheckpointError(
            f"weights is {location!r}; segmentation networks start from none, embedded, or a checkpoint of one, such as"
            " runs/NAME."
        )
    return read_checkpoint(find_checkpoint(location), task="segment")
