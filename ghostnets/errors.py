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
    └── MissingExtraError (ImportError)       an optional library is not installed, or cannot be imported

Each message is one sentence: the value received, the value expected, and what to do next. Each error also inherits the
corresponding builtin, so ``except ValueError`` works without importing this module.
"""

import difflib
import importlib
import importlib.util
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

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
    "explain_missing_torch",
    "install_command",
    "reinstall_command",
    "require",
    "require_installed",
]

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # torch without CUDA libraries
TORCH_LIBRARIES = ("huggingface_hub", "torch", "torchvision")  # libraries of the extra torch
EXTRAS_WITHOUT_TORCH = ("heic", "onnx", "openvino", "parquet", "ray", "serve")


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
    """A network cannot be exported, or the outputs of its exported file differ from the network's."""


class EngineError(GhostNetsError, RuntimeError):
    """The engine cannot run a network or file, or was not built."""


class RunError(GhostNetsError, RuntimeError):
    """A training run cannot start, continue or be resumed."""


class StorageError(GhostNetsError, OSError):
    """A file cannot be written; an existing file is left unchanged."""

    @property
    def reason(self) -> str:
        """The reason in the words of the operating system, if it is the cause; else the whole message."""
        return (isinstance(self.__cause__, OSError) and self.__cause__.strerror) or str(self)


class MissingExtraError(GhostNetsError, ImportError):
    """An optional library is not installed, or cannot be imported."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Name of the module, such as ``"matplotlib.pyplot"``.
        extra: Extra of this package that installs the library.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The library is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(error.name or module, extra) from error
    except (ImportError, OSError, RuntimeError) as error:  # compiled for other versions of the libraries that it needs
        raise _broken(module.partition(".")[0], error) from error


def require_installed(*modules: str, extra: str) -> None:
    """Check that optional libraries are installed, without importing them.

    Args:
        modules: Names of top-level modules.
        extra: Extra of this package that installs the libraries.

    Raises:
        MissingExtraError: A library is not installed.
    """
    for module in modules:
        if module in sys.modules:
            is_installed = sys.modules[module] is not None  # None blocks the import
        else:
            is_installed = importlib.util.find_spec(module) is not None
        if not is_installed:
            raise _missing(module, extra)


@contextmanager
def explain_missing_torch() -> Iterator[None]:
    """Raise MissingExtraError for an import of torch, torchvision or huggingface-hub that fails within the context."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in TORCH_LIBRARIES:
            raise
        raise _missing(error.name, "torch") from error


def _missing(module: str, extra: str) -> MissingExtraError:
    sentence = f"this needs {module}, which is not installed; run: {install_command(extra)}"
    if extra not in EXTRAS_WITHOUT_TORCH and importlib.util.find_spec("torch") is None:
        sentence += f" --extra-index-url {CPU_INDEX} (without this address, torch comes with libraries for NVIDIA GPUs)"
    return MissingExtraError(sentence)


def _broken(library: str, error: Exception) -> MissingExtraError:
    reason = " ".join(str(error).split())[:200]
    advice = f"pip install --force-reinstall {library}"
    if library in ("torch", "torchvision"):
        advice = (
            "pip install --force-reinstall torch torchvision"
            f" --index-url {CPU_INDEX} (both must come from one index; without this address, both are from PyPI)"
        )
    return MissingExtraError(f"{library} is installed but cannot be imported ({reason}); run: {advice}")


def install_command(extra: str) -> str:
    """Command that installs an extra from the source that this package was installed from (PEP 610).

    From an index, by its name; from a folder, an archive or a repository, by its address; a source tree that is only on
    the path, as an editable installation.
    """
    return "pip install " + _requirement(f"[{extra}]")


def reinstall_command() -> str:
    """Command that installs this package again from its sources, without the libraries that it needs.

    The sources of a wheel are not next to it, so those of the package index are named.
    """
    requirement = _requirement("")
    if requirement.rstrip("'").endswith(".whl"):
        requirement = "ghostnets"
    return f"pip install --force-reinstall --no-deps --no-binary ghostnets {requirement}"


def _requirement(extras: str) -> str:
    from importlib import metadata

    try:
        text = metadata.distribution("ghostnets").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return "-e " + shlex.quote(f"{Path(__file__).parents[1]}{extras}")
    if text is None:
        return shlex.quote(f"ghostnets{extras}")
    origin = json.loads(text)
    if "dir_info" in origin:
        folder = unquote(urlsplit(origin["url"]).path)
        return ("-e " if origin["dir_info"].get("editable") else "") + shlex.quote(f"{folder}{extras}")
    source = origin.get("vcs_info")
    url = f"{source['vcs']}+{origin['url']}@{source['commit_id']}" if source else origin["url"]
    return shlex.quote(f"ghostnets{extras} @ {url}")
