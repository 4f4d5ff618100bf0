"""Every error that ghostnets raises on purpose.

    GhostNetsError
    ├── ConfigurationError (ValueError)       an option or argument is out of its range
    │   └── UnknownNameError (LookupError)    no such model, recipe, dataset, ...; close matches are named
    ├── DataError (ValueError)                a folder of images that cannot be used
    │   └── ImageError                        one image file that cannot be used
    ├── CheckpointError (ValueError)          a file that is not a checkpoint, or not one that fits
    ├── ArtefactError (ValueError)            a shipped file that cannot be used
    ├── ExportError (RuntimeError)            a network that cannot be exported, or whose file answers otherwise
    ├── EngineError (RuntimeError)            the engine cannot run this network or file, or was not built
    ├── RunError (RuntimeError)               a training run that cannot start, go on or be resumed
    ├── StorageError (OSError)                a file could not be written; what stood there before still stands
    └── MissingExtraError (ImportError)       an optional library is not installed

Each message is one sentence that says what was got, what was wanted and what to do next. The errors also inherit the
builtin that a caller would expect, so ``except ValueError`` works without knowing this package.
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
    """Base of all errors raised on purpose by ghostnets."""


class ConfigurationError(GhostNetsError, ValueError):
    """An option or argument is out of its range."""


class UnknownNameError(ConfigurationError, LookupError):
    """A name that is not in the table it was looked up in.

    Args:
        kind: What was looked up, in the singular: ``"model"``.
        name: The name that was asked for.
        known: All names of the table.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        name = name if len(name) <= 200 else f"{name[:200]}..."  # it may come from anyone
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(names)}."
        super().__init__(f"there is no {kind} named {name!r}; {hint}")


class DataError(GhostNetsError, ValueError):
    """A folder of images that cannot be used."""


class ImageError(DataError):
    """One image file that cannot be used."""


class CheckpointError(GhostNetsError, ValueError):
    """A file that is not a checkpoint, or not one that fits."""


class ArtefactError(GhostNetsError, ValueError):
    """A shipped file (ONNX, OpenVINO, a plan of the engine, ...) that cannot be used."""


class ExportError(GhostNetsError, RuntimeError):
    """A network that cannot be exported, or whose exported file does not answer as the network does."""


class EngineError(GhostNetsError, RuntimeError):
    """The engine cannot run this network or file, or was not built."""


class RunError(GhostNetsError, RuntimeError):
    """A training run that cannot start, go on or be resumed."""


class StorageError(GhostNetsError, OSError):
    """A file could not be written; what stood there before still stands."""


class MissingExtraError(GhostNetsError, ImportError):
    """An optional library is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional library.

    Args:
        module: Import name, ``"matplotlib.pyplot"``.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs {error.name}, which is not installed; run: pip install 'ghostnets[{extra}]'"
        ) from error
