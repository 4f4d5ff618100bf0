"""Every network by its name."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models import g_ghost, ghost_resnet, ghost_vgg, ghostnet, ghostnetv2, ghostnetv3, printed_port
from ghostnets.models.network import Backbone, Network, Variant

__all__ = ["MODELS", "ModelEntry", "create_model", "list_models", "model_arguments", "model_entry"]


class ModelEntry(NamedTuple):
    """What the registry knows of a network."""

    build: Callable[..., Network]  # keyword arguments of the network's class
    variant: Variant
    source: str  # where the architecture and the published numbers come from


V1 = "GhostNet, arXiv 1911.11907"
MODELS: dict[str, ModelEntry] = {
    name: ModelEntry(
        partial(network, **{"num_classes": variant.benchmark.num_classes, **variant.arguments}), variant, source
    )
    for network, variants, source in [
        (ghostnet.GhostNet, ghostnet.VARIANTS, f"{V1}, tables 1 and 7"),
        (ghostnetv2.GhostNetV2, ghostnetv2.VARIANTS, "GhostNetV2, arXiv 2211.12905, official README"),
        (
            ghostnetv3.GhostNetV3,
            ghostnetv3.VARIANTS,
            "GhostNetV3, arXiv 2404.11202; 1.0 and 1.6 as iFormer quotes them",
        ),
        (g_ghost.GGhostRegNet, g_ghost.VARIANTS, "G-Ghost, arXiv 2201.03297, official README"),
        (ghost_resnet.GhostResNet, ghost_resnet.VARIANTS, f"{V1}, tables 5 (ResNet-56) and 6 (ResNet-50)"),
        (ghost_vgg.GhostVGG, ghost_vgg.VARIANTS, f"{V1}, table 5"),
        (
            printed_port.PrintedGhostNet,
            printed_port.VARIANTS,
            "the printed port of GhostNet 1.0x; revised: d-li14, its README",
        ),
    ]
    for name, variant in variants.items()
}


def list_models() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(MODELS)


def model_entry(name: str) -> ModelEntry:
    """What the registry knows of a network.

    Raises:
        UnknownNameError: There is no such network; close matches are named.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    return MODELS[name]


def model_arguments(name: str) -> frozenset[str]:
    """Names of the keyword arguments that the network takes.

    Raises:
        UnknownNameError: There is no such network.
    """
    return frozenset(inspect.signature(model_entry(name).build).parameters)


def create_model(
    name: str, *, features_only: bool = False, out_indices: Sequence[int] | None = None, **arguments: Any
) -> nn.Module:
    """Builds a network with random weights.

    >>> model = create_model("ghostnet_100", num_classes=10, in_chans=1, small_input=True)
    >>> backbone = create_model("ghostnet_100", features_only=True, out_indices=(1, 2, 3, 4))

    Args:
        name: One of ``list_models()``.
        features_only: Give a backbone whose forward returns a list of maps (``Backbone``).
        out_indices: Which maps, with ``features_only``.
        **arguments: Of the network: ``num_classes``, ``in_chans``, ``drop_rate``, ``output_stride`` for all;
            ``drop_path_rate`` for all that have residual blocks; ``width``, ``ratio``, ``cheap_kernel_size``,
            ``small_input`` and others as the classes tell (``GhostNet``, ``GhostResNet``, ``GhostVGG``,
            ``GGhostRegNet``, ``PrintedGhostNet``).

    Returns:
        The network, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: There is no such network.
        ConfigurationError: The network has no such argument, or its value is out of range.
    """
    build, known = model_entry(name).build, model_arguments(name)
    if unknown := sorted(set(arguments) - known):
        raise ConfigurationError(f"{name} has no argument {', '.join(unknown)}; it takes {', '.join(sorted(known))}.")
    model = build(**arguments)
    if not features_only:
        if out_indices is not None:
            raise ConfigurationError("out_indices goes with features_only=True; without it there is nothing to index.")
        return model
    return Backbone(model, out_indices=out_indices)
