"""Lazy public names: a package imports each of its names from a submodule when the name is first accessed (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping

from ghostnets.errors import explain_missing_torch

__all__ = ["lazy_getattr"]


def lazy_getattr(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Module-level ``__getattr__`` of a package whose names are imported on first access.

    >>> __getattr__ = lazy_getattr(__name__, {"train_model": "train"})  # from ghostnets.train  # doctest: +SKIP

    Args:
        package: ``__name__`` of the package.
        modules: Public name -> submodule of the package that defines it.

    Returns:
        The function; it raises MissingExtraError for a name that needs torch where torch is not installed.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with explain_missing_torch():
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
