"""What detection and segmentation share: recipes without the fields of classifiers, initial weights of a backbone."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from ghostnets.checkpoints import EMBEDDED_WEIGHTS, Checkpoint, create_model, read_checkpoint
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.files import find_checkpoint
from ghostnets.models import Backbone
from ghostnets.terminal import format_count
from ghostnets.train.recipe import AUTO_WEIGHTS, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED

__all__ = [
    "check_model",
    "choose_arguments",
    "choose_backbone_weights",
    "find_classifier_fields",
    "load_embedded_backbone",
    "load_initial_weights",
    "read_initial_checkpoint",
]

CLASSIFIER_FIELDS = {  # fields of a recipe that apply to classifiers only, and the value of each that is accepted
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
    "shift": Recipe.shift,  # of images that have the size of the input
    "randaugment": 0,
    "randaugment_magnitude": Recipe.randaugment_magnitude,
    "erasing": 0.0,
    "class_balanced": False,
    "class_weights": "none",
    "teacher": None,
    "distill": Recipe.distill,
    "distill_weight": Recipe.distill_weight,
    "temperature": Recipe.temperature,
    "compile": False,
}


def find_classifier_fields(recipe: Recipe, *, allowed: Collection[str] = ()) -> list[str]:
    """Return name and value of each field of a recipe that applies to classifiers only and is not disabled, or changed.

    Args:
        recipe: The recipe.
        allowed: Fields that the task has as well.
    """
    wrong = [
        f"{name} {getattr(recipe, name)}"
        for name, value in CLASSIFIER_FIELDS.items()
        if name not in allowed and getattr(recipe, name) != value
    ]
    return wrong + ([f"in_chans {recipe.in_chans}"] if recipe.in_chans not in (None, 3) else [])


def choose_backbone_weights(recipe: Recipe, backbone: str, *, new: str) -> tuple[Recipe, str]:
    """Resolve the weights ``"auto"`` of a recipe for detection or segmentation: embedded ones of the backbone, or none.

    Args:
        recipe: The recipe.
        backbone: Name of the backbone.
        new: What has random weights beside the backbone, for the sentence: ``"neck and head are"``.

    Returns:
        The recipe with weights, or None for random ones, and a sentence for the user on the initial weights.
    """
    is_embedded = backbone in EMBEDDED_WEIGHTS
    weights = recipe.weights
    if weights == AUTO_WEIGHTS:
        weights = EMBEDDED if is_embedded else None
    recipe = recipe.changed(weights=weights)
    if weights is None:
        known = "" if is_embedded else f": no weights of {backbone} come with the package"
        return recipe, f"training {recipe.model} from scratch, with random weights{known}"
    if weights != EMBEDDED:
        return recipe, f"training from the weights of {weights}"
    sentence = f"training {recipe.model} from the weights of {backbone} that come with the package"
    return recipe, f"{sentence}; {new} new (from scratch: --weights none)"


def read_initial_checkpoint(location: str, *, task: str, kind: str) -> Checkpoint:
    """Read the trained network that training starts from.

    Args:
        location: Value of ``Recipe.weights``.
        task: Task of the network.
        kind: Its name in messages, such as ``"detector"``.

    Raises:
        CheckpointError: There is no such checkpoint, or it is for another task.
    """
    path = find_checkpoint(location)
    if not path.exists():
        raise CheckpointError(
            f"weights is {location!r}; {kind}s start from none, embedded, or a checkpoint of a {kind}, such as"
            " runs/NAME."
        )
    return read_checkpoint(path, task=task)


def check_model(recipe: Recipe, checkpoint: Checkpoint, default: str) -> None:
    """Raise ConfigurationError for a recipe with another network than the checkpoint that training starts from.

    Args:
        recipe: The recipe.
        checkpoint: The checkpoint, whose network replaces that of the recipe.
        default: Network of recipes that choose none.
    """
    if recipe.model not in (default, checkpoint.architecture):
        raise ConfigurationError(
            f"model is {recipe.model}, and {recipe.weights} has {checkpoint.architecture}, which training from it"
            " keeps; omit --model, or start from --weights embedded or none."
        )


def choose_arguments(
    recipe: Recipe, checkpoint: Checkpoint | None, default_backbone: str, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Return the arguments of the network: those of the checkpoint that training starts from, or of the recipe.

    Args:
        recipe: The recipe.
        checkpoint: The network that training starts from; None for a new one.
        default_backbone: Backbone of such a network without another one.
        class_names: Classes of the data.

    Raises:
        ConfigurationError: The recipe has another backbone than the checkpoint.
    """
    arguments = {} if checkpoint is None else dict(checkpoint.arguments)
    if checkpoint is None and recipe.backbone is not None:
        arguments["backbone"] = recipe.backbone
    backbone = arguments.get("backbone") or default_backbone
    if recipe.backbone not in (None, backbone):
        raise ConfigurationError(
            f"backbone is {recipe.backbone}, and {recipe.weights} has {backbone}, which training from it keeps; omit"
            " --backbone, or start from --weights embedded or none."
        )
    return {**arguments, "num_classes": len(class_names)}


def load_embedded_backbone(network: nn.Module, backbone: str) -> None:
    """Load the weights that come with the package into ``network.backbone``, which is ``backbone``."""
    maps = network.backbone
    assert isinstance(maps, Backbone)
    trained = create_model(backbone, pretrained="embedded", features_only=True, out_indices=maps.out_indices)
    maps.load_state_dict(trained.state_dict())


def load_initial_weights(
    network: nn.Module,
    recipe: Recipe,
    backbone: str,
    class_names: tuple[str, ...],
    *,
    kind: str,
    read: Callable[[str], Checkpoint],
    depends_on_classes: Callable[[str], bool],
    kept_outputs: int = 0,
    on_message: Callable[[str], None],
) -> None:
    """Load the initial weights of a recipe into a network with random ones.

    From a network with other classes, all weights are taken except those that depend on the classes.

    Args:
        network: The network, whose ``backbone`` is a ``Backbone`` if the weights are embedded ones.
        recipe: The recipe, with resolved weights.
        backbone: Name of the backbone.
        class_names: Classes of the data.
        kind: Name of such a network in messages, such as ``"detector"``.
        read: Reads the checkpoint at the location of the weights.
        depends_on_classes: Whether the weight of a name belongs to a layer whose outputs are the classes.
        kept_outputs: Number of the last outputs of these layers that do not depend on the classes.
        on_message: Callback for messages to the user.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    if recipe.weights is None:
        return
    if recipe.weights == EMBEDDED:
        if backbone not in EMBEDDED_WEIGHTS:
            raise CheckpointError(f"no weights of {backbone} come with the package; pass --weights none, or a {kind}.")
        load_embedded_backbone(network, backbone)
        return
    checkpoint = read(recipe.weights)
    weights = dict(checkpoint.state_dict)
    if checkpoint.class_names != class_names:
        own = network.state_dict()
        for name in filter(depends_on_classes, weights):
            rows = len(own[name]) - kept_outputs
            weights[name] = torch.cat([own[name][:rows], weights[name][len(weights[name]) - kept_outputs :]])
        on_message(
            f"{recipe.weights} has other classes ({format_count(len(checkpoint.class_names), 'class')}), so the outputs"
            " of classes are new"
        )
    network.load_state_dict(weights)
