"""Eligibility of convolutions for compression, with the reasons for exclusion."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.sites import Site, is_ghost

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
    runs = _observe_runs(model, list(names), x[:2])
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
        elif owners[id(conv.weight)] > 1 or parametrize.is_parametrized(conv):
            reason = "its weight is shared or parametrised"
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
def _observe_runs(model: nn.Module, names: list[str], x: Tensor) -> dict[str, list[tuple[int, int, bool]]]:
    """Return for each run of each convolution the size of its maps, and whether it is linear in its weight.

    A subclass whose maps are all zero, such as one that standardises its weight and has a gain of zero, does not count
    as linear.
    """
    found: dict[str, list[tuple[int, int, bool]]] = {name: [] for name in names}

    def hook(name: str) -> Any:
        def record(module: nn.Conv2d, inputs: tuple[Any, ...], output: Tensor) -> None:
            double = copy.deepcopy(module)
            double._forward_hooks.clear()
            double.weight.mul_(2)
            if double.bias is not None:
                double.bias.mul_(2)
            tolerance = 1e-3 * float(output.abs().max())
            is_linear = torch.allclose(double(*inputs), 2 * output, rtol=1e-3, atol=tolerance)
            is_linear &= type(module) is nn.Conv2d or tolerance > 0
            found[name].append((output.shape[2], output.shape[3], is_linear))

        return record

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    with temporary_hooks(handles):
        model(x)
    return found
