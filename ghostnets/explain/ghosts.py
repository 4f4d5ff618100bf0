"""Find the Ghost modules of a network, and disable single ghosts during inference."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
"""Replacements of disabled ghosts: copies of their intrinsic maps, or zeros."""


def find_ghost_modules(model: nn.Module) -> dict[str, GhostModule]:
    """Return name -> Ghost module, in network order, without the modules that have no ghosts (ratio 1)."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, GhostModule) and module.has_ghosts
    }


def count_ghosts(module: GhostModule) -> int:
    """Return the number of ghosts in the output: C_out - m, with m = ceil(C_out / s) intrinsic maps."""
    return module.out_channels - math.ceil(module.out_channels / module.ratio)


@contextmanager
def disable_ghosts(model: nn.Module, disabled: Mapping[str, Sequence[int] | None], *, fill: str) -> Iterator[None]:
    """Replace some ghosts within the context; weights and all other maps stay the same.

    The network is hooked in place, so no other thread may run it at the same time.

    Args:
        model: A network with Ghost modules, in evaluation mode.
        disabled: Name of a Ghost module -> indices of its disabled ghosts, or None for all of them. Ghost i is output
            channel m + i of the module, derived from intrinsic map i // (s - 1).
        fill: Replacement: ``"copies"`` of the intrinsic map of each ghost, or ``"zeros"``.

    Raises:
        UnknownNameError: The network has no Ghost module with ghosts of that name.
        ConfigurationError: A ghost index is out of range, or ``fill`` is unknown.
    """
    if fill not in FILLS:
        raise ConfigurationError(f"fill is {fill!r}; it must be {' or '.join(FILLS)}.")
    modules = find_ghost_modules(model)
    for name, ghosts in disabled.items():
        if name not in modules:
            raise UnknownNameError("Ghost module with ghosts", name, modules)
        number = count_ghosts(modules[name])
        out_of_range = [ghost for ghost in ghosts or () if not 0 <= ghost < number]
        if out_of_range:
            raise ConfigurationError(f"{name} has no ghost {out_of_range[0]}; its ghosts are 0 to {number - 1}.")
    with ExitStack() as hooks:
        for name, ghosts in disabled.items():
            hooks.enter_context(modules[name].cheap_operation.register_forward_hook(_hook(ghosts, fill)))
        yield


def _hook(disabled: Sequence[int] | None, fill: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def replace(module: nn.Module, inputs: tuple[Any, ...], ghosts: Tensor) -> Tensor:
        (intrinsic,) = inputs
        replacements = FILLS[fill](intrinsic, ghosts)
        if disabled is None:
            return replacements
        is_disabled = torch.zeros(ghosts.shape[1], dtype=torch.bool, device=ghosts.device)
        is_disabled[list(disabled)] = True
        return torch.where(is_disabled[:, None, None], replacements, ghosts)

    return replace
