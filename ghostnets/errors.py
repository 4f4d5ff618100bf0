"""Exceptions of ghostnets.

    GhostNetsError
    ├── ConfigurationError (ValueError)       an option or argument is invalid
    │   └── UnknownNameError (LookupError)    no such model, recipe, dataset, ...; suggests close matches
    ├── DataError (ValueError)                a dataset cannot be used
    │   └── ImageError                        an image file cannot be used
    ├── CheckpointError (ValueError)          a file is not a checkpoint, or does not fit the network
    ├── ArtefactError (ValueError)            an exported file cannot be used
    ├── ExportError (RuntimeError)            a network cannot be exported, or its exported file gives other outputs
    ├── EngineError (RuntimeError)            the engine cannot run a network or file, or was not built
    ├── RunError (RuntimeError)               a training run cannot start, continue or be resumed
    ├── StorageError (OSError)                a file cannot be written; an existing file is left unchanged
    └── MissingExtraError (ImportError)       an optional library is not installed

Each message is one sentence: the value received, the value expected, and what to do next. Each error also inherits the
corresponding builtin, so ``except ValueError`` works without importing this module.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "ArtefactError",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "EngineError",
    "ExportError",
    "GhostNetsError",
    "ImageError",
    "MissingExtraError",
    "RunError",
    "StorageError",
    "UnknownNameError",
    "require",
]


class GhostNetsError(Exception):
    """Base class of all errors that ghostnets raises deliberately."""


class ConfigurationError(GhostNetsError, ValueError):
    """An option or argument is invalid."""


class UnknownNameError(ConfigurationError, LookupError):
    """A name is not in its registry.

    Args:
        kind: Kind of the named object, in the singular: ``"model"``.
        name: Requested name.
        known: Registered names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        name = name if len(name) <= 200 else f"{name[:200]}..."  # it may be untrusted input
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(names)}."
        super().__init__(f"there is no {kind} named {name!r}; {hint}")


class DataError(GhostNetsError, ValueError):
    """A dataset cannot be used."""


class ImageError(DataError):
    """An image file cannot be used."""


class CheckpointError(GhostNetsError, ValueError):
    """A file is not a checkpoint, or does not fit the network."""


class ArtefactError(GhostNetsError, ValueError):
    """An exported file (ONNX, OpenVINO, an engine plan, ...) cannot be used."""


class ExportError(GhostNetsError, RuntimeError):
    """A network cannot be exported, or its exported file gives other outputs than the network."""


class EngineError(GhostNetsError, RuntimeError):
    """The engine cannot run a network or file, or was not built."""


class RunError(GhostNetsError, RuntimeError):
    """A training run cannot start, continue or be resumed."""


class StorageError(GhostNetsError, OSError):
    """A file cannot be written; an existing file is left unchanged."""


class MissingExtraError(GhostNetsError, ImportError):
    """An optional library is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Name of the module, such as ``"matplotlib.pyplot"``.
        extra: Extra of this package that installs the library.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs {error.name}, which is not installed; run: pip install 'ghostnets[{extra}]'"
        ) from error
