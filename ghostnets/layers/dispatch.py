"""A hook for faster implementations of a layer's forward pass, which packages above this one provide."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["ForwardOverride", "dispatch", "is_scripting", "override_forward"]

# At module level because TorchScript would parse a "type: ignore" comment inside a function.
is_scripting = torch.jit.is_scripting  # type: ignore[attr-defined]

_overrides: Mapping[type[nn.Module], "ForwardOverride"] = {}


class ForwardOverride(Protocol):
    """Another implementation of the forward pass of one class of layers."""

    def __call__(self, module: nn.Module, x: Tensor, /) -> Tensor | None:
        """Return what the module's own forward would, or None if it does not support this module or input."""


@contextmanager
def override_forward(overrides: Mapping[type[nn.Module], ForwardOverride]) -> Iterator[None]:
    """Within the context, layers of these classes try the given implementation before their own."""
    global _overrides
    before, _overrides = _overrides, overrides
    try:
        yield
    finally:
        _overrides = before


def dispatch(layer: type[nn.Module], module: nn.Module, x: Tensor) -> Tensor | None:
    """Return the output of the override for ``layer``, or None if the module's own forward is to run.

    Compilers and exporters always see the module's own forward.

    Args:
        layer: Class that the override is registered for; the class of ``module`` or a base of it.
        module: Module whose forward is called.
        x: Its input.
    """
    if torch.compiler.is_compiling():
        return None
    override = _overrides.get(layer)
    return None if override is None else override(module, x)
