"""Copies of networks."""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

from ghostnets.errors import ConfigurationError

__all__ = ["copy_module"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def copy_module(module: AnyModule, memo: dict[int, Any] | None = None) -> AnyModule:
    """Return what ``copy.deepcopy`` returns, in less time.

    A module has a dozen dictionaries for hooks, mostly empty, which ``deepcopy`` takes apart and builds again singly.
    Weights that are computed from others before each run, as pruning and weight normalisation do, are copied too, which
    ``deepcopy`` refuses.

    Args:
        module: Any module.
        memo: As for ``copy.deepcopy``: id -> its copy, of what is already copied or is to be shared.

    Raises:
        ConfigurationError: An attribute cannot be copied.
    """
    memo = {} if memo is None else memo
    if id(module) in memo:
        return memo[id(module)]
    kind = type(module)
    protocol = ("__reduce_ex__", "__reduce__", "__getstate__")
    if hasattr(kind, "__deepcopy__") or any(getattr(kind, name) is not getattr(nn.Module, name) for name in protocol):
        return _copy_value(module, memo, kind.__name__)
    made = memo[id(module)] = kind.__new__(kind)
    state = {}
    for name, value in module.__getstate__().items():  # type: ignore[no-untyped-call]
        if name == "_modules":
            copies = [(key, None if each is None else copy_module(each, memo)) for key, each in value.items()]
            state[name] = type(value)(copies)
        elif isinstance(value, dict) and not value:
            state[name] = type(value)()
        elif isinstance(value, Tensor) and not value.is_leaf:
            state[name] = memo[id(value)] = value.detach().clone()
        else:
            state[name] = _copy_value(value, memo, f"{name} of {kind.__name__}")
    made.__setstate__(state)  # type: ignore[no-untyped-call]
    return made


def _copy_value(value: Any, memo: dict[int, Any], name: str) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except (TypeError, RuntimeError, ValueError, AttributeError, copy.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(f"{name} cannot be copied ({reason}); remove it from the network.") from error
