"""Forward hooks that are removed at the end of a block."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["hooked", "temporary_hooks"]


@contextmanager
def temporary_hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when the block ends, also by an exception.

    Args:
        handles: Handles that ``register_forward_hook`` and ``register_forward_pre_hook`` returned.
    """
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()


@contextmanager
def hooked(model: nn.Module, names: Iterable[str], see: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Let a function see the outputs of some layers, by name, and perhaps replace them."""
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: see(name, output))
        for name in names
    ]
    with temporary_hooks(handles):
        yield
