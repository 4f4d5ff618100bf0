"""Eligibility of convolutions for compression, with the reasons for exclusion."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.sites import Site, has_own_weights, is_ghost
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
    readers = {site.conv: _find_conv_readers(model, site) for site in sites}
    names = dict.fromkeys(name for site in sites for name in (site.conv, *readers[site.conv]))
    runs, read, named = _observe_runs(model, list(names), x[:2])
    reasons = {}
    for site in sites:
        conv = model.get_submodule(site.conv)
        assert isinstance(conv, nn.Conv2d)
        sizes = runs[site.conv]
        if layers is not None and site.conv not in layers:
            reason = "not among the layers to change"
        elif site.conv.startswith(inside):
            reason = "part of a Ghost module"
        elif conv.groups > 1:
            reason = "has groups"
        elif conv.out_channels < MIN_CHANNELS:
            reason = f"has {conv.out_channels} maps"
        elif len(sizes) != 1:
            reason = f"runs {len(sizes)} times"
        elif sizes[0][0] * sizes[0][1] == 1:
            reason = "its maps have one pixel"
        elif not has_own_weights(conv) or owners[id(conv.weight)] > 1:
            reason = "its weight is shared or parametrised"
        elif site.conv in read:
            reason = "other code reads its weight"
        elif by_name := [name for name in (site.conv, *readers[site.conv]) if name in named]:
            reason = f"the input of {by_name[0]} is passed by its name"
        elif not sizes[0][2]:
            reason = f"{type(conv).__name__} is not linear in its weight"
        elif nonlinear := [name for name in readers[site.conv] if not all(is_linear for *_, is_linear in runs[name])]:
            reason = f"{nonlinear[0]}, which reads its maps, is not linear in its weight"
        else:
            continue
        reasons[site.conv] = reason
    return reasons


def _find_conv_readers(model: nn.Module, site: Site) -> list[str]:
    """Return the names of the convolutions whose weights change with the maps of a site."""
    names = [*site.chain, *([site.consumer] if site.consumer else [])]
    return [name for name in names if isinstance(model.get_submodule(name), nn.Conv2d)]


@torch.no_grad()
def _observe_runs(
    model: nn.Module, names: list[str], x: Tensor
) -> tuple[dict[str, list[tuple[int, int, bool]]], set[str], set[str]]:
    """Return for each run of each convolution the size of its maps, and whether it is linear in its weight.

    A subclass whose maps are all zero, such as one that standardises its weight and has a gain of zero, does not count
    as linear.

    Returns:
        The runs by the name of the convolution; the names of those whose weights are read beside that, and of those
        whose input is passed by its name.
    """
    found: dict[str, list[tuple[int, int, bool]]] = {name: [] for name in names}
    named: set[str] = set()
    reads = _WeightReads({name: model.get_submodule(name) for name in names})

    def hook(name: str) -> Any:
        def record(module: nn.Conv2d, inputs: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            double = copy_module(module)
            for hooks in (double._forward_pre_hooks, double._forward_hooks):  # those before it have changed the inputs
                hooks.clear()
            double.weight.mul_(2)
            if double.bias is not None:
                double.bias.mul_(2)
            tolerance = 1e-3 * float(output.abs().max())
            is_linear = torch.allclose(double(*inputs, **kwargs), 2 * output, rtol=1e-3, atol=tolerance)
            is_linear &= type(module) is nn.Conv2d or tolerance > 0
            found[name].append((output.shape[2], output.shape[3], is_linear))
            named.update([name] if not inputs else [])

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True) for name in names]
    with temporary_hooks([*handles, *reads.follow()]), reads:
        model(x)
    return found, reads.found, named


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
