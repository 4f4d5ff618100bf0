"""The model registry: every network by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models import d_li14, g_ghost, ghost_resnet, ghost_vgg, ghostnet, ghostnetv2, ghostnetv3
from ghostnets.models.network import Backbone, Network, Variant

__all__ = [
    "ALIASES",
    "MODELS",
    "NETWORK_CLASSES",
    "ModelEntry",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
    "resolve_name",
]


class ModelEntry(NamedTuple):
    """One network of the registry."""

    build: Callable[..., Network]  # takes the keyword arguments of the network's class
    variant: Variant
    source: str  # of the architecture and of the published numbers


V1 = "GhostNet, arXiv 1911.11907"
# Class, its variants by name, and their source.
FAMILIES: tuple[tuple[type[Network], Mapping[str, Variant], str], ...] = (
    (ghostnet.GhostNet, ghostnet.VARIANTS, f"{V1}, tables 1 and 7"),
    (ghostnetv2.GhostNetV2, ghostnetv2.VARIANTS, "GhostNetV2, arXiv 2211.12905, official README"),
    (ghostnetv3.GhostNetV3, ghostnetv3.VARIANTS, "GhostNetV3, arXiv 2404.11202; 1.0 and 1.6 as iFormer quotes them"),
    (g_ghost.GGhostRegNet, g_ghost.VARIANTS, "G-Ghost, arXiv 2201.03297, official README"),
    (ghost_resnet.GhostResNet, ghost_resnet.VARIANTS, f"{V1}, tables 5 (ResNet-56) and 6 (ResNet-50)"),
    (ghost_vgg.GhostVGG, ghost_vgg.VARIANTS, f"{V1}, table 5"),
    (d_li14.DLi14GhostNet, d_li14.VARIANTS, "d-li14/ghostnet.pytorch, README"),
)
NETWORK_CLASSES = tuple(network for network, _, _ in FAMILIES)
MODELS: dict[str, ModelEntry] = {
    name: ModelEntry(
        partial(network, **{"num_classes": variant.benchmark.num_classes, **variant.arguments}), variant, source
    )
    for network, variants, source in FAMILIES
    for name, variant in variants.items()
}

# Earlier name -> name. Checkpoints, descriptions and recipes that hold an earlier name still load.
ALIASES: dict[str, str] = {
    "ghostnet_100_printed": "ghostnet_100_d_li14",
    "ghostnet_100_printed_revised": "ghostnet_100_d_li14_revised",
}


def list_models() -> list[str]:
    """Names of all networks, sorted, without aliases."""
    return sorted(MODELS)


def resolve_name(name: str) -> str:
    """Name of a network in the registry, for that name or an alias of it.

    Raises:
        UnknownNameError: There is no such network; the message suggests close matches.
    """
    name = ALIASES.get(name, name)
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    return name


def model_entry(name: str) -> ModelEntry:
    """Registry entry of a network.

    Raises:
        UnknownNameError: There is no such network; the message suggests close matches.
    """
    return MODELS[resolve_name(name)]


def model_arguments(name: str) -> frozenset[str]:
    """Names of the keyword arguments that a network takes.

    Raises:
        UnknownNameError: There is no such network.
    """
    return frozenset(inspect.signature(model_entry(name).build).parameters)


def create_model(
    name: str, *, features_only: bool = False, out_indices: Sequence[int] | None = None, **arguments: Any
) -> nn.Module:
    """Build a network with random weights.

    >>> model = create_model("ghostnet_100", num_classes=10, in_chans=1, small_input=True)
    >>> backbone = create_model("ghostnet_100", features_only=True, out_indices=(1, 2, 3, 4))

    Args:
        name: A name of ``list_models()``, or an alias.
        features_only: Return a ``Backbone``, whose forward returns a list of feature maps.
        out_indices: Indices of the feature maps to return; requires ``features_only``.
        **arguments: Arguments of the network. All take ``num_classes``, ``in_chans``, ``drop_rate`` and
            ``output_stride``, those with residual blocks ``drop_path_rate``; the rest (``width``, ``ratio``,
            ``cheap_kernel_size``, ``small_input``, ...) is documented by the classes (``GhostNet``, ``GhostResNet``,
            ``GhostVGG``, ``GGhostRegNet``, ``DLi14GhostNet``).

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
            raise ConfigurationError(
                "out_indices is given without features_only=True; add features_only=True, or leave out_indices out."
            )
        return model
    return Backbone(model, out_indices=out_indices)
