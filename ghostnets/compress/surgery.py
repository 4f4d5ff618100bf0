"""Layer replacement in a network: a Ghost module for a convolution, or fewer channels between two layers.

A change is a dictionary of plain values, so that a checkpoint can store it and the network can be built again:

- ``{"kind": "ghost", "conv": NAME, "norm": NAME, "act": "relu", "intrinsic": 24, "mix": False,
  "cheap_kernel_size": 3}``
- ``{"kind": "merge", "conv": NAME, "chain": [NAMES], "consumer": NAME, "channels": 48}``
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress.sites import Site, can_fold, is_depthwise
from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostConv2d, fold_batch_norm, narrow_conv, norm_arguments
from ghostnets.layers.copying import copy_module

__all__ = [
    "Change",
    "apply_changes",
    "describe_change",
    "fold_conv",
    "insert_ghost",
    "layers_of",
    "merge_channels",
    "replace_layer",
    "restore_layers",
]

Change = Mapping[str, Any]


def describe_change(site: Site, kind: str, number: int, *, cheap_kernel_size: int = 3) -> dict[str, Any]:
    """Describe a change at a site.

    Args:
        site: The convolution and its surroundings.
        kind: ``"merge"``, ``"mixed ghost"`` or ``"ghost"``.
        number: Number of kept channels, or of intrinsic maps.
        cheap_kernel_size: Size of the filters of ghosts.
    """
    if kind == "merge":
        merged = {"conv": site.conv, "chain": list(site.chain), "consumer": site.consumer}
        return {"kind": "merge", **merged, "channels": number}
    return {
        "kind": "ghost",
        "conv": site.conv,
        "norm": site.norm,
        "act": site.act,
        "intrinsic": number,
        "mix": kind == "mixed ghost",
        "cheap_kernel_size": cheap_kernel_size,
    }


def apply_changes(model: nn.Module, changes: Iterable[Change]) -> nn.Module:
    """Return a copy of a network with the layers that these changes make, for weights that are loaded afterwards.

    Args:
        model: Network of the architecture that the changes were made in.
        changes: Changes in the order in which they were made.

    Raises:
        ConfigurationError: A change does not fit the network.
    """
    changed = copy_module(model)
    for change in changes:
        try:
            if change["kind"] == "merge":
                channels = _conv(changed, change["conv"]).out_channels
                kept = torch.arange(_number(change["channels"], channels), device="cpu")
                merge_channels(changed, change, kept, torch.zeros(channels, len(kept)), torch.zeros(channels))
            elif change["kind"] == "ghost":
                channels = _conv(changed, change["conv"]).out_channels
                insert_ghost(changed, change, torch.arange(_number(change["intrinsic"], channels), device="cpu"))
            else:
                raise ValueError(f"its kind is {change['kind']!r}, not ghost or merge")
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"a change of {type(model).__name__} does not fit it ({error}); use the network that it was made for."
            ) from error
    return changed


def merge_channels(model: nn.Module, change: Change, kept: Tensor, matrix: Tensor, offset: Tensor) -> None:
    """Remove output channels of a convolution, and fold their prediction from the kept ones into the next layer.

    Args:
        model: Network, changed in place.
        change: Names of the layers.
        kept: Indices of the kept channels, int64 (m,).
        matrix: Linear prediction of the next layer's C inputs from the m kept channels, (C, m).
        offset: Constant part of the prediction, (C,).
    """
    conv = _conv(model, change["conv"])
    consumer = model.get_submodule(change["consumer"])
    if not isinstance(consumer, nn.Conv2d | nn.Linear):
        raise ValueError(f"{change['consumer']} is a {type(consumer).__name__}")
    replace_layer(model, change["conv"], narrow_conv(conv, outputs=kept))
    for name in change["chain"]:
        replace_layer(model, name, _narrow(model.get_submodule(name), kept))
    weight = consumer.weight.detach().double()
    merged = torch.einsum("oc...,cm->om...", weight, matrix.to(weight))
    merged = merged.flatten().view(merged.shape)  # strides of channels_last, of 1x1 weights too, would pass to the maps
    bias = weight.flatten(2).sum(2) @ offset.to(weight) if weight.dim() > 2 else weight @ offset.to(weight)
    if consumer.bias is not None:
        bias = bias + consumer.bias.detach()
    made = copy_module(consumer)
    made.weight, made.bias = (nn.Parameter(values.to(consumer.weight.dtype)) for values in (merged, bias))
    if isinstance(made, nn.Conv2d):
        made.in_channels = len(kept)
    else:
        made.in_features = len(kept)
    replace_layer(model, change["consumer"], made)


def insert_ghost(model: nn.Module, change: Change, intrinsic: Tensor) -> GhostConv2d:
    """Replace a convolution, with its normalisation, by a Ghost module whose ghosts are not fitted yet.

    Args:
        model: Network, changed in place.
        change: Names of the layers and arguments of the module.
        intrinsic: Indices of the intrinsic maps, int64 (m,).

    Returns:
        The module.
    """
    folded = fold_conv(model, change)
    options = {"mix": change["mix"], "cheap_kernel_size": change["cheap_kernel_size"], "act": change["act"]}
    with torch.random.fork_rng(devices=[]):  # initial weights are replaced, so no random numbers are used up
        ghost = GhostConv2d(folded, len(intrinsic), **options)
    is_ghost = torch.ones(folded.out_channels, dtype=torch.bool, device="cpu")
    is_ghost[intrinsic] = False
    arranged = torch.cat([intrinsic, is_ghost.nonzero().flatten()])
    with torch.no_grad():
        ghost.primary = narrow_conv(folded, outputs=intrinsic)
        ghost.order.copy_(arranged.argsort())
    replace_layer(model, change["conv"], ghost)
    if change["norm"]:
        act = getattr(model.get_submodule(change["norm"]), "act", None)
        replace_layer(model, change["norm"], copy.deepcopy(act) if isinstance(act, nn.Module) else nn.Identity())
    return ghost


def layers_of(change: Change) -> list[str]:
    """Return the names of the layers of a change."""
    names = [change["conv"], change.get("norm", ""), *change.get("chain", ()), change.get("consumer", "")]
    return [name for name in names if name]


@contextmanager
def restore_layers(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Restore layers on exit."""
    before = {name: model.get_submodule(name) for name in names}
    try:
        yield
    finally:
        for name, module in before.items():
            replace_layer(model, name, module)


def fold_conv(model: nn.Module, change: Change) -> nn.Conv2d:
    """Return a copy of a convolution, with a bias, that computes what its normalisation outputs."""
    conv = _conv(model, change["conv"])
    made = narrow_conv(conv, bias=True)
    if change["norm"]:
        norm = model.get_submodule(change["norm"])
        if not isinstance(norm, nn.BatchNorm2d) or not can_fold(norm):
            raise ValueError(f"{change['norm']} is a {type(norm).__name__}")
        weight, bias = fold_batch_norm(conv.weight.detach(), conv.bias, **norm_arguments(norm))
        assert made.bias is not None
        with torch.no_grad():
            made.weight.copy_(weight)
            made.bias.copy_(bias)
    return made


def _narrow(module: nn.Module, kept: Tensor) -> nn.Module:
    """Return a copy of a depthwise convolution or a batch normalisation with some of its channels."""
    if isinstance(module, nn.Conv2d) and is_depthwise(module):
        return narrow_conv(module, outputs=kept)
    if not isinstance(module, nn.BatchNorm2d) or not can_fold(module):
        raise ValueError(f"a {type(module).__name__} cannot be narrowed")
    made = copy_module(module)
    made.num_features = len(kept)
    made.weight, made.bias = (nn.Parameter(values.detach()[kept].clone()) for values in (module.weight, module.bias))
    for name in ("running_mean", "running_var"):
        setattr(made, name, getattr(module, name)[kept].clone())
    return made


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Conv2d) or module.groups != 1:
        raise ValueError(f"{name} is not a convolution without groups")
    return module


def _number(value: Any, channels: int) -> int:
    if type(value) is not int or not 1 <= value < channels:
        raise ValueError(f"{value!r} is not a positive number of maps below {channels}")
    return value


def replace_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another one, under all of its names, in its mode."""
    replaced = model.get_submodule(name)
    module.train(replaced.training)
    for parent in list(model.modules()):
        for child, each in parent._modules.items():
            if each is replaced:
                parent._modules[child] = module
