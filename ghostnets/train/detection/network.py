"""The detector of a recipe and its initial weights: random, of an embedded backbone, or of a trained detector."""

from pathlib import Path
from typing import Any

import torch

from ghostnets.checkpoints import EMBEDDED_WEIGHTS, Checkpoint, create_model, read_checkpoint
from ghostnets.data import DataSource
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.files import find_checkpoint
from ghostnets.models import Backbone
from ghostnets.models.detection import DETECTORS, Detector, create_detector
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.recipe import AUTO_WEIGHTS, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED

__all__ = ["build_initial_detector", "check_detection", "resolve_detector"]

IMAGE_SIZE = 416
NEUTRAL = {  # fields of a recipe that apply to classifiers only, and the value that disables each
    "width": None,
    "ratio": None,
    "cheap_kernel_size": None,
    "drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "frozen": False,
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "rotate": 0.0,
    "randaugment": 0,
    "erasing": 0.0,
    "class_balanced": False,
    "class_weights": "none",
    "teacher": None,
    "compile": False,
}


def check_detection(recipe: Recipe) -> None:
    """Raise ConfigurationError for a recipe with options that apply to classifiers only."""
    wrong = [f"{name} {getattr(recipe, name)}" for name, value in NEUTRAL.items() if getattr(recipe, name) != value]
    if recipe.flip not in ("horizontal", "none"):
        wrong.append(f"flip {recipe.flip}")
    if recipe.in_chans not in (None, 3):
        wrong.append(f"in_chans {recipe.in_chans}")
    if wrong:
        raise ConfigurationError(
            f"detectors are trained without {', '.join(wrong)}; omit these options, or start from --recipe detect."
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
    arguments: dict[str, Any] = {}
    size = recipe.image_size
    if recipe.weights not in (None, EMBEDDED, AUTO_WEIGHTS):
        checkpoint = _read_detector(recipe.weights)
        recipe = recipe.changed(model=checkpoint.architecture, weights=str(find_checkpoint(recipe.weights).resolve()))
        arguments, size = dict(checkpoint.arguments), size or checkpoint.preprocessing.image_size
        preprocessing = Preprocessing.for_boxes(size, fit=checkpoint.preprocessing.fit)
        if preprocessing.fit != "stretch":
            raise ConfigurationError(
                f"{recipe.weights} expects letterboxed images, but detectors are trained on stretched ones; start from"
                " another detector."
            )
    else:
        preprocessing = Preprocessing.for_boxes(size or IMAGE_SIZE)
    check_detection(recipe)
    arguments["num_classes"] = len(source.class_names)
    with torch.device("meta"):
        create_detector(recipe.model, **arguments)
    return recipe.changed(image_size=preprocessing.image_size, in_chans=3), arguments, preprocessing


def build_initial_detector(recipe: Recipe, arguments: dict[str, Any], class_names: tuple[str, ...]) -> Detector:
    """Build the detector with its initial weights, in training mode.

    From a detector with other classes, all weights are taken except those of the last convolutions of the head.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    detector = create_detector(recipe.model, **arguments)
    if recipe.weights is None:
        return detector
    if recipe.weights == EMBEDDED:
        name = arguments.get("backbone") or DETECTORS[recipe.model].backbone
        if name not in EMBEDDED_WEIGHTS:
            raise CheckpointError(f"no weights of {name} come with the package; pass --weights none, or a detector.")
        assert isinstance(detector.backbone, Backbone)
        indices = detector.backbone.out_indices
        trained = create_model(name, pretrained="embedded", features_only=True, out_indices=indices)
        detector.backbone.load_state_dict(trained.state_dict())
        return detector
    checkpoint = _read_detector(recipe.weights)
    weights = dict(checkpoint.state_dict)
    if checkpoint.class_names != class_names:
        own = detector.state_dict()
        weights = {name: own[name] if name.startswith("head.predict.") else value for name, value in weights.items()}
    detector.load_state_dict(weights)
    return detector


def _read_detector(location: str) -> Checkpoint:
    if not Path(find_checkpoint(location)).exists():
        raise CheckpointError(
            f"weights is {location!r}; detectors start from none, embedded, or a checkpoint of a detector, such as"
            " runs/NAME."
        )
    return read_checkpoint(find_checkpoint(location), task="detect")
