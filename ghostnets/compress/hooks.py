"""Forward hooks that are removed at the end of a block."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle

__all__ = ["temporary_hooks"]


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
