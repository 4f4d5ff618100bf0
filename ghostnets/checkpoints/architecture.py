"""Networks of checkpoints: of the registries, or of timm and torchvision, with the changes that compression made."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ghostnets.compress import apply_changes
from ghostnets.errors import ConfigurationError, UnknownNameError, require
from ghostnets.models import create_model, resolve_name
from ghostnets.models.names import DETECTOR_NAMES, SEGMENTER_NAMES

__all__ = ["TASKS", "build_network", "resolve_architecture", "task_of"]

LIBRARIES = ("timm", "torchvision")
TASKS = {"classify": "a classifier", "detect": "a detector", "segment": "a segmentation network"}
"""Tasks of checkpoints, and how messages call a network for each."""


def resolve_architecture(name: str) -> str:
    """Return the name of a network of the registries, for any task, without aliases, or ``LIBRARY:NAME``.

    Raises:
        UnknownNameError: The network is unknown.
    """
    library, separator, _ = name.partition(":")
    if separator and library not in LIBRARIES:
        raise UnknownNameError("library of networks", library, LIBRARIES)
    return name if separator or task_of(name) != "classify" else resolve_name(name)


def task_of(architecture: str) -> str:
    """Return the task of a network, a key of ``TASKS``."""
    if architecture in DETECTOR_NAMES:
        return "detect"
    return "segment" if architecture in SEGMENTER_NAMES else "classify"


def build_network(architecture: str, arguments: dict[str, Any], changes: Sequence[dict[str, Any]] = ()) -> nn.Module:
    """Build a network without its weights.

    Args:
        architecture: As returned by ``resolve_architecture``.
        arguments: Keyword arguments of ``create_model`` of the registry or of timm, of ``create_detector``, of
            ``create_segmenter``, or of torchvision's ``get_model``.
        changes: Changes of ``ghostnets.compress``, in order.

    Raises:
        ConfigurationError: The library has no such network, or a change or an argument does not fit it.
        MissingExtraError: The library is not installed.
    """
    library, separator, name = architecture.partition(":")
    if task_of(architecture) == "detect":
        from ghostnets.models.detection import create_detector

        model: nn.Module = create_detector(architecture, **arguments)
    elif task_of(architecture) == "segment":
        from ghostnets.models.segmentation import create_segmenter

        model = create_segmenter(architecture, **arguments)
    elif not separator:
        model = create_model(architecture, **arguments)
    elif library == "timm":
        timm = require("timm", extra="bench")
        if name not in timm.list_models():  # create_model would also read files and the hub
            raise ConfigurationError(f"timm {timm.__version__} has no network {name!r}; see timm.list_models().")
        model = timm.create_model(name, **{**arguments, "pretrained": False})
    else:
        models = require("torchvision.models", extra="bench")
        if name not in models.list_models(module=models):  # others are no classifiers, and download a backbone
            raise ConfigurationError(
                f"torchvision has no classifier {name!r}; see torchvision.models.list_models(torchvision.models)."
            )
        model = models.get_model(name, **{**arguments, "weights": None})
    return apply_changes(model, changes) if changes else model
