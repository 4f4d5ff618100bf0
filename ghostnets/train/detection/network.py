"""The detector of a recipe and its initial weights: random, of an embedded backbone, or of a trained detector."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostnets.checkpoints import Checkpoint
from ghostnets.data import DataSource
from ghostnets.errors import ConfigurationError
from ghostnets.files import find_checkpoint
from ghostnets.models.detection import DETECTORS, Detector, create_detector
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.backbone_tasks import (
    check_model,
    choose_arguments,
    find_classifier_fields,
    load_initial_weights,
    read_initial_checkpoint,
)
from ghostnets.train.detection.published import IMAGE_SIZE, NCNN_SUFFIX, read_published
from ghostnets.train.recipe import AUTO_WEIGHTS, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED
from ghostnets.train.recipes import DETECT

__all__ = ["build_initial_detector", "check_detection", "resolve_detector"]

SWITCHES = {  # fields that turn an augmentation on or off: both values (``BoxAugmentation``)
    "min_scale": (DETECT.min_scale, 1.0),
    "color_jitter": (DETECT.color_jitter, 0.0),
}


def check_detection(recipe: Recipe) -> None:
    """Raise ConfigurationError for a recipe with options or values that detectors do not have."""
    wrong = find_classifier_fields(recipe)
    if recipe.flip not in ("horizontal", "none"):
        wrong.append(f"flip {recipe.flip}")
    if wrong:
        raise ConfigurationError(
            f"detectors are trained without {', '.join(wrong)}; omit these options, or start from --recipe detect."
        )
    for name, (on, off) in SWITCHES.items():
        if getattr(recipe, name) not in (on, off):
            raise ConfigurationError(
                f"{name} is {getattr(recipe, name)}, and detectors are trained with {on} or, to disable it, {off:g}."
            )
    if recipe.model not in DETECTORS:
        raise ConfigurationError(
            f"{recipe.model} is not a detector; choose --model {', '.join(sorted(DETECTORS))}, or --task classify."
        )


def resolve_detector(recipe: Recipe, source: DataSource) -> tuple[Recipe, dict[str, Any], Preprocessing]:
    """Resolve the recipe, the arguments of ``create_detector`` and the preprocessing.

    Raises:
        CheckpointError: The weights cannot be read, or are not those of a detector.
        ConfigurationError: The recipe does not fit a detector.
    """
    checkpoint: Checkpoint | None = None
    size = recipe.image_size
    if recipe.weights not in (None, EMBEDDED, AUTO_WEIGHTS):
        checkpoint = _read_detector(recipe, recipe.weights)
        check_model(recipe, checkpoint, DETECT.model)
        recipe = recipe.changed(model=checkpoint.architecture, weights=str(find_checkpoint(recipe.weights).resolve()))
        size = size or checkpoint.preprocessing.image_size
        preprocessing = Preprocessing.for_boxes(size, fit=checkpoint.preprocessing.fit)
        if preprocessing.fit != "stretch":
            raise ConfigurationError(
                f"{recipe.weights} expects letterboxed images, but detectors are trained on stretched ones; start from"
                " another detector."
            )
    else:
        preprocessing = Preprocessing.for_boxes(size or IMAGE_SIZE)
    check_detection(recipe)
    arguments = choose_arguments(recipe, checkpoint, DETECTORS[recipe.model].backbone, source.class_names)
    with torch.device("meta"):
        create_detector(recipe.model, **arguments)
    return recipe.changed(image_size=preprocessing.image_size, in_chans=3), arguments, preprocessing


def build_initial_detector(
    recipe: Recipe,
    arguments: dict[str, Any],
    class_names: tuple[str, ...],
    *,
    images: Iterable[Tensor],
    on_message: Callable[[str], None],
) -> Detector:
    """Build the detector with its initial weights, in training mode.

    From a detector with other classes, all weights are taken except those of the scores of the classes.

    Args:
        recipe: The recipe, with resolved weights.
        arguments: Arguments of ``create_detector``.
        class_names: Classes of the data.
        images: Normalised batches of training images, which are read for an ncnn file alone (``read_published``).
        on_message: Callback for messages to the user.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    detector = create_detector(recipe.model, **arguments)
    load_initial_weights(
        detector,
        recipe,
        arguments.get("backbone") or DETECTORS[recipe.model].backbone,
        class_names,
        kind="detector",
        read=partial(_read_detector, recipe, images=images, on_message=on_message),
        depends_on_classes=lambda name: name.startswith("head.predict."),
        kept_outputs=4 * detector.bins,
        on_message=on_message,
    )
    return detector


def _read_detector(recipe: Recipe, location: str, **measured: Any) -> Checkpoint:
    """Read the checkpoint of a detector, or an ncnn file of NanoDet-Plus, which does not name its classes."""
    if Path(location).suffix != NCNN_SUFFIX:
        return read_initial_checkpoint(location, task="detect", kind="detector")
    arguments = {} if recipe.backbone is None else {"backbone": recipe.backbone}
    return read_published(location, arguments, name=recipe.model, **measured)
