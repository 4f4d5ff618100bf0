"""The segmentation network of a recipe; its initial weights: random, of an embedded backbone, or of a trained one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ghostnets.checkpoints import Checkpoint
from ghostnets.data import DataSource
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.files import find_checkpoint
from ghostnets.models.segmentation import SEGMENTERS, SegmentationNetwork, create_segmenter
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.backbone_tasks import (
    check_model,
    choose_arguments,
    find_classifier_fields,
    load_initial_weights,
    read_initial_checkpoint,
)
from ghostnets.train.recipe import AUTO_WEIGHTS, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED
from ghostnets.train.recipes import SEGMENT

__all__ = ["build_initial_segmenter", "check_segmentation", "choose_training_side", "resolve_segmenter"]

IMAGE_SIZE = 512
TRAINING_SIDE = 3 / 4  # of training crops, relative to the input: see ``choose_training_side``
SIDE_STEP = 16  # pixels, the usual output stride
KIND = "segmentation network"
ALLOWED = ("label_smoothing", "rotate")  # fields that detectors do not have


def check_segmentation(recipe: Recipe) -> None:
    """Raise ConfigurationError for a recipe with options that do not apply to segmentation networks."""
    wrong = find_classifier_fields(recipe, allowed=ALLOWED)
    if wrong:
        raise ConfigurationError(
            f"segmentation networks are trained without {', '.join(wrong)}; omit these options, or start from --recipe"
            " segment."
        )
    if recipe.model not in SEGMENTERS:
        raise ConfigurationError(
            f"{recipe.model} is not a segmentation network; choose --model {', '.join(sorted(SEGMENTERS))}, or --task"
            " classify."
        )


def choose_training_side(image_size: int) -> int:
    """Side in pixels to which training crops are resized.

    A crop keeps a quarter to the whole of the area, so resized to the input it would show objects at one to two times
    their size in evaluation, where the whole image is resized to it. At three quarters of the side it shows them at
    0.75 to 1.5 times that size (Touvron et al., "Fixing the train-test resolution discrepancy", arXiv 1906.06423), and
    a step takes little more than half of the time.

    Args:
        image_size: Side of the network's input in pixels.
    """
    return max(SIDE_STEP, round(TRAINING_SIDE * image_size / SIDE_STEP) * SIDE_STEP)


def resolve_segmenter(recipe: Recipe, source: DataSource) -> tuple[Recipe, dict[str, Any], Preprocessing]:
    """Resolve the recipe, the arguments of ``create_segmenter`` and the preprocessing.

    Raises:
        CheckpointError: The weights cannot be read, or are not a segmentation network's.
        ConfigurationError: The recipe does not fit a segmentation network.
        DataError: The training masks have one class only.
    """
    found = [name for name, images in zip(source.class_names, source.class_counts["train"], strict=True) if images]
    if len(found) < 2:
        raise DataError(
            f"all labelled pixels of the training masks of {source.name} are {found[0]}, so there is nothing to tell"
            f" apart ({'; '.join(source.notes)}); check the masks and the table of classes."
        )
    checkpoint: Checkpoint | None = None
    size = recipe.image_size or IMAGE_SIZE
    if recipe.weights not in (None, EMBEDDED, AUTO_WEIGHTS):
        checkpoint = read_initial_checkpoint(recipe.weights, task="segment", kind=KIND)
        check_model(recipe, checkpoint, SEGMENT.model)
        recipe = recipe.changed(model=checkpoint.architecture, weights=str(find_checkpoint(recipe.weights).resolve()))
        size = recipe.image_size or checkpoint.preprocessing.image_size
        if checkpoint.preprocessing.fit != "stretch":
            raise ConfigurationError(
                f"{recipe.weights} takes letterboxed images, and segmentation networks are trained on stretched ones;"
                " start from another one."
            )
    preprocessing = Preprocessing(size, size, fit="stretch")
    check_segmentation(recipe)
    arguments = choose_arguments(recipe, checkpoint, SEGMENTERS[recipe.model].backbone, source.class_names)
    with torch.device("meta"):
        create_segmenter(recipe.model, **arguments)
    return recipe.changed(image_size=size, in_chans=3), arguments, preprocessing


def build_initial_segmenter(
    recipe: Recipe, arguments: dict[str, Any], class_names: tuple[str, ...], *, on_message: Callable[[str], None]
) -> SegmentationNetwork:
    """Build the network with its initial weights, in training mode.

    From a network with other classes, all weights are taken except those of the layers that depend on their number.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    network = create_segmenter(recipe.model, **arguments)
    load_initial_weights(
        network,
        recipe,
        arguments.get("backbone") or SEGMENTERS[recipe.model].backbone,
        class_names,
        kind=KIND,
        read=partial(read_initial_checkpoint, task="segment", kind=KIND),
        depends_on_classes=lambda name: name.rpartition(".")[0] in network.classifier_names,
        on_message=on_message,
    )
    return network
