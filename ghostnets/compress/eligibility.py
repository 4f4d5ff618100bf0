"""Eligibility of convolutions for compression, with the reasons for exclusion."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.plain_layers import has_plain_inputs, has_plain_outputs
from ghostnets.compress.sites import Site, has_hooks, has_own_weights, is_ghost
from ghostnets.compress.surgery import replace_layer, restore_layers
from ghostnets.layers.copying import copy_module

__all__ = ["MIN_CHANNELS", "find_ineligible"]

MIN_CHANNELS = 8


def find_ineligible(model: nn.Module, sites: list[Site], x: Tensor, layers: Collection[str] | None) -> dict[str, str]:
    """Return the convolutions that cannot be changed, by name, with the reason.

    Args:
        model: Network in evaluation mode.
        sites: Convolutions of the network.
        x: Sample images, (N, C, H, W).
        layers: Names of the convolutions that may change; None for all.
    """
    inside = tuple(f"{name}." for name, module in model.named_modules() if is_ghost(module))
    shared = [parameter for module in model.modules() for parameter in module.parameters(recurse=False)]
    owners = {id(p): sum(p is other for other in shared) for p in shared}
    around = {site.conv: [name for name in (site.norm, *site.chain, site.consumer) if name] for site in sites}
    runs = _observe_runs(model, sites, x[:2])
    reasons = {}
    for site in sites:
        conv = model.get_submodule(site.conv)
        assert isinstance(conv, nn.Conv2d)
        sizes = runs.sizes[site.conv]
        if layers is not None and site.conv not in layers:
            reason = "not among the layers to change"
        elif site.conv.startswith(inside):
            reason = "part of a Ghost module"
        elif conv.groups > 1:
            reason = "has groups"
        elif conv.out_channels < MIN_CHANNELS:
            reason = f"has {conv.out_channels} maps"
        elif held := [name for name in (site.conv, *around[site.conv]) if name in runs.held]:
            reason = f"other code than {type(model).__name__}'s modules holds {held[0]}"
        elif len(sizes) != 1:
            reason = f"runs {len(sizes)} times"
        elif len(sizes[0]) != 4:
            reason = f"its maps have {len(sizes[0])} axes"
        elif sizes[0][2] * sizes[0][3] == 1:
            reason = "its maps have one pixel"
        elif not has_own_weights(conv) or owners[id(conv.weight)] > 1:
            reason = "its weight is shared or parametrised"
        elif has_hooks(conv):
            reason = "it has hooks or a forward of its own"
        elif site.conv in runs.read:
            reason = "other code reads its weight"
        elif by_name := [name for name in (site.conv, *around[site.conv]) if name in runs.named]:
            reason = f"the input of {by_name[0]} is passed by its name"
        elif site.conv not in runs.plain_outputs:
            reason = f"{type(conv).__name__} is not linear in its weight and bias, channel by channel"
        elif others := [name for name in around[site.conv] if name in runs.others]:
            reason = f"{others[0]}, which reads its maps, is not linear in its weight and bias, channel by channel"
        else:
            continue
        reasons[site.conv] = reason
    return reasons


@dataclass
class _Runs:
    """What layers did in a run of the network.

    Attributes:
        sizes: Shape of the maps in each run of a layer, by its name.
        held: Names of the layers that run although others are in their place.
        read: Names of the layers whose weights other code reads.
        named: Names of the layers whose input is passed by its name.
        plain_outputs: Names of the convolutions whose output channels can be chosen.
        others: Names of the layers that read maps of a convolution, and whose input channels cannot be chosen.
    """

    sizes: dict[str, list[torch.Size]]
    held: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    plain_outputs: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


@torch.no_grad()
def _observe_runs(model: nn.Module, sites: list[Site], x: Tensor) -> _Runs:
    """Observe a run of the network on images (N, C, H, W), with copies in the place of all layers that may change."""
    readers = {name for site in sites for name in (*site.chain, site.consumer)}
    names = dict.fromkeys(name for site in sites for name in (site.conv, site.norm, *site.chain, site.consumer) if name)
    layers = {name: model.get_submodule(name) for name in names}
    runs = _Runs({name: [] for name in names})

    def record(name: str, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        runs.sizes[name].append(output.shape if isinstance(output, Tensor) else torch.Size())
        if not inputs:
            runs.named.add(name)
            return
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            return
        is_depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if isinstance(layer, nn.Conv2d) and has_plain_outputs(layer, inputs[0], output):
            runs.plain_outputs.add(name)
        if name in readers and not (name in runs.plain_outputs if is_depthwise else has_plain_inputs(layer, inputs[0])):
            runs.others.add(name)

    copies = {name: _share_weights(layer) for name, layer in layers.items()}
    reads = _WeightReads(copies)
    handles = [copied.register_forward_hook(partial(record, name), with_kwargs=True) for name, copied in copies.items()]
    held = [
        layer.register_forward_pre_hook(lambda *_, name=name: runs.held.add(name)) for name, layer in layers.items()
    ]
    with temporary_hooks([*handles, *held, *reads.follow()]), restore_layers(model, layers):
        for name, copied in copies.items():
            replace_layer(model, name, copied)
        with reads:
            model(x)
    runs.read = reads.found
    return runs


def _share_weights(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer with the same tensors."""
    return copy_module(layer, {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())})


class _WeightReads(TorchFunctionMode):
    """Finds layers whose weight or bias is read by other code than their own.

    Args:
        layers: Layers by name.

    Attributes:
        found: Names of these layers.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.owners = {id(value): name for name, layer in layers.items() for value in layer.parameters(recurse=False)}
        self.running: list[str] = []
        self.found: set[str] = set()

    def follow(self) -> list[RemovableHandle]:
        """Follow which layer runs; return the handles of the hooks that do so."""
        handles = []
        for name, layer in self.layers.items():
            handles.append(layer.register_forward_pre_hook(lambda *_, name=name: self.running.append(name)))
            handles.append(layer.register_forward_hook(lambda *_: self._end()))
        return handles

    def _end(self) -> None:
        self.running.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in _values((args, kwargs)):
            name = self.owners.get(id(value))
            if name is not None and name not in self.running:
                self.found.add(name)
        return func(*args, **(kwargs or {}))


def _values(arguments: Any) -> Iterator[Any]:
    """Yield all values of nested lists, tuples and dictionaries."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        for value in arguments:
            yield from _values(value)
    else:
        yield arguments
