"""Ghosts switched off while a network runs: in their place stand copies of their intrinsic maps, or zeros."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.layers import GhostModule

__all__ = ["FILLS", "count_ghosts", "disable_ghosts", "find_ghost_modules"]


def _copies(intrinsic: Tensor, ghosts: Tensor) -> Tensor:
    return intrinsic.repeat_interleave(ghosts.shape[1] // intrinsic.shape[1], dim=1)


def _zeros(intrinsic: Tensor, ghosts: Tensor) -> Tensor:
    return torch.zeros_like(ghosts)


FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"copies": _copies, "zeros": _zeros}


def find_ghost_modules(model: nn.Module) -> dict[str, GhostModule]:
    """The Ghost modules that make ghosts, by name, in the network's order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, GhostModule) and module.has_ghosts
    }


def count_ghosts(module: GhostModule) -> int:
    """How many maps of the output are ghosts: C_out - m, with m = ceil(C_out / s) intrinsic maps."""
    return module.out_channels - math.ceil(module.out_channels / module.ratio)


@contextmanager
def disable_ghosts(model: nn.Module, off: Mapping[str, Sequence[int] | None], *, fill: str) -> Iterator[None]:
    """Inside, the network runs without some of its ghosts; nothing else changes, no weight and no other map.

    It works by hooks on the modules of the network itself, so no other thread may run the same network meanwhile.

    Args:
        model: A network with Ghost modules, in evaluation mode.
        off: Name of a Ghost module -> the numbers of its ghosts that are off, None for all of them. Ghost i is output
            channel m + i of the module, made from intrinsic map i // (s - 1).
        fill: What stands in their place: ``"copies"`` of the intrinsic map of each, or ``"zeros"``.

    Raises:
        UnknownNameError: The network has no such Ghost module, or it makes no ghosts.
        ConfigurationError: A module has no ghost of that number, or there is no such fill.
    """
    if fill not in FILLS:
        raise ConfigurationError(f"fill is {fill!r}; it must be {' or '.join(FILLS)}.")
    modules = find_ghost_modules(model)
    for name, ghosts in off.items():
        if name not in modules:
            raise UnknownNameError("Ghost module with ghosts", name, modules)
        number = count_ghosts(modules[name])
        wrong = [ghost for ghost in ghosts or () if not 0 <= ghost < number]
        if wrong:
            raise ConfigurationError(f"{name} has no ghost {wrong[0]}; its ghosts are 0 to {number - 1}.")
    handles = [modules[name].cheap_operation.register_forward_hook(_hook(ghosts, fill)) for name, ghosts in off.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(off: Sequence[int] | None, fill: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def replace(module: nn.Module, inputs: tuple[Any, ...], ghosts: Tensor) -> Tensor:
        (intrinsic,) = inputs
        others = FILLS[fill](intrinsic, ghosts)
        if off is None:
            return others
        is_off = torch.zeros(ghosts.shape[1], dtype=torch.bool, device=ghosts.device)
        is_off[list(off)] = True
        return torch.where(is_off[:, None, None], others, ghosts)

    return replace
