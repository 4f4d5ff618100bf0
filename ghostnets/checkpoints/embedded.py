"""Backbone weights that come with the package: no download, no network access."""

from pathlib import Path

from ghostnets.errors import CheckpointError
from ghostnets.models import resolve_name

__all__ = ["EMBEDDED_WEIGHTS", "embedded_weights"]

EMBEDDED_WEIGHTS = ("ghostnet_100",)
"""Networks with embedded weights: a checkpoint without classifier, in float16 (see ``embedded_weights/README.md``)."""


def embedded_weights(name: str) -> Path:
    """Path of the embedded weights of a network, a checkpoint of this project with ``num_classes=0``.

    Raises:
        CheckpointError: The package holds no weights of this network.
        UnknownNameError: The network is unknown.
    """
    name = resolve_name(name)
    if name not in EMBEDDED_WEIGHTS:
        raise CheckpointError(
            f"no weights of {name} are embedded; networks with embedded weights: {', '.join(EMBEDDED_WEIGHTS)}."
        )
    return Path(__file__).parent / "embedded_weights" / f"{name}.safetensors"
