"""The model registry: every network by name."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import nn

from ghostnets.errors import ConfigurationError
from ghostnets.models import d_li14, g_ghost, ghost_resnet, ghost_vgg, ghostnet, ghostnetv2, ghostnetv3
from ghostnets.models.backbone import Backbone
from ghostnets.models.features import Indices
from ghostnets.models.names import resolve_name
from ghostnets.models.network import Network, Variant

__all__ = [
    "MODELS",
    "NETWORK_CLASSES",
    "ModelEntry",
    "check_backbone_arguments",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
]


class ModelEntry(NamedTuple):
    """One network of the registry."""

    build: Callable[..., Network]  # takes the keyword arguments of the network's class
    variant: Variant
    source: str  # source of the architecture and the published numbers


V1 = "GhostNet, arXiv 1911.11907"
# Class of the networks, their variants, source of the architecture and of the published numbers.
FAMILIES: list[tuple[type[Network], dict[str, Variant], str]] = [
    (ghostnet.GhostNet, ghostnet.VARIANTS, f"{V1}, tables 1 and 7"),
    (ghostnetv2.GhostNetV2, ghostnetv2.VARIANTS, "GhostNetV2, arXiv 2211.12905, official README"),
    (ghostnetv3.GhostNetV3, ghostnetv3.VARIANTS, "GhostNetV3, arXiv 2404.11202; 1.0 and 1.6 as quoted by iFormer"),
    (g_ghost.GGhostRegNet, g_ghost.VARIANTS, "G-Ghost, arXiv 2201.03297, official README"),
    (ghost_resnet.GhostResNet, ghost_resnet.VARIANTS, f"{V1}, tables 5 (ResNet-56) and 6 (ResNet-50)"),
    (ghost_vgg.GhostVGG, ghost_vgg.VARIANTS, f"{V1}, table 5"),
    (d_li14.DLi14GhostNet, d_li14.VARIANTS, "d-li14/ghostnet.pytorch, README"),
]
NETWORK_CLASSES = frozenset(network for network, _, _ in FAMILIES)
MODELS: dict[str, ModelEntry] = {
    name: ModelEntry(
        partial(network, **{"num_classes": variant.benchmark.num_classes, **variant.arguments}), variant, source
    )
    for network, variants, source in FAMILIES
    for name, variant in variants.items()
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all networks that match a pattern, sorted, without aliases.

    Args:
        pattern: Shell pattern of the whole name: ``"ghostnetv3*"``; all by default.
    """
    return sorted(filter(partial(fnmatchcase, pat=pattern), MODELS))


def model_entry(name: str) -> ModelEntry:
    """Return the registry entry of a network.

    Raises:
        UnknownNameError: The network is unknown; the message suggests close matches.
    """
    return MODELS[resolve_name(name)]


def model_arguments(name: str) -> frozenset[str]:
    """Return the names of the keyword arguments of a network.

    Raises:
        UnknownNameError: The network is unknown.
    """
    return frozenset(inspect.signature(model_entry(name).build).parameters)


def create_model(
    name: str,
    *,
    features_only: bool = False,
    out_indices: Indices | None = None,
    like: Literal["timm"] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a network with random weights.

    >>> model = create_model("ghostnet_100", num_classes=10, in_chans=1, small_input=True)
    >>> backbone = create_model("ghostnet_100", features_only=True, out_indices=(1, 2, 3, 4))

    Args:
        name: A name of ``list_models()``, or an alias.
        features_only: Return a ``Backbone``, whose forward returns a list of feature maps.
        out_indices: Indices of the feature maps to return, or the number of the last ones; requires ``features_only``.
        like: ``"timm"`` for the feature maps of timm's ``features_only=True``; requires ``features_only``.
        **arguments: Arguments of the network. All take ``num_classes``, ``in_chans``, ``drop_rate`` and
            ``output_stride``, those with residual blocks ``drop_path_rate``; further arguments (``width``,
            ``ratio``, ``cheap_kernel_size``, ``small_input``, ...) are documented by the classes (``GhostNet``,
            ``GhostResNet``, ``GhostVGG``, ``GGhostRegNet``, ``DLi14GhostNet``).

    Returns:
        The network, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: The network is unknown.
        ConfigurationError: The network has no such argument, or its value is out of range.
    """
    build, known = model_entry(name).build, model_arguments(name)
    if unknown := sorted(set(arguments) - known):
        raise ConfigurationError(f"{name} has no argument {', '.join(unknown)}; it takes {', '.join(sorted(known))}.")
    model = build(**arguments)
    check_backbone_arguments(features_only=features_only, out_indices=out_indices, like=like)
    return Backbone(model, out_indices=out_indices, like=like) if features_only else model


def check_backbone_arguments(*, features_only: bool, **given: Any) -> None:
    """Raise an error if an argument of ``Backbone`` is given without ``features_only``.

    Raises:
        ConfigurationError: An argument is not None although ``features_only`` is false.
    """
    if not features_only and (names := [name for name, value in given.items() if value is not None]):
        raise ConfigurationError(
            f"{names[0]} is given without features_only=True; add features_only=True or omit {names[0]}."
        )
