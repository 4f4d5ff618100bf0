"""The compiled modules, which are missing if the package was installed without a compiler."""

from importlib import import_module
from typing import Any

from ghostnets.errors import EngineError, MissingExtraError, reinstall_command

__all__ = ["ENGINE", "TRAINING", "import_native", "missing_native"]

ENGINE = "ghostnets.engine._native"
TRAINING = "ghostnets.train.fused._training"
PARTS = {ENGINE: "the CPU engine", TRAINING: "the fused training kernels"}


def import_native(name: str) -> Any:
    """Import ``ENGINE`` or ``TRAINING``.

    Raises:
        EngineError: The module was not built, or was built for another system.
    """
    try:
        return import_module(name)
    except MissingExtraError:
        raise
    except ImportError as error:
        raise EngineError(f"{_explain(name, error)}, or run the network in torch.") from error


def missing_native(name: str) -> str | None:
    """Explain that a compiled module cannot be imported, with the command that builds it; None if it can."""
    try:
        import_module(name)
    except MissingExtraError:
        raise
    except ImportError as error:
        return f"{_explain(name, error)}; until then, torch does the same more slowly."
    return None


def _explain(name: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        reason = "could not be built when ghostnets was installed, as there was no C++20 compiler; install one"
    else:
        reason = f"was built for another system and cannot be loaded here ({error}); install a C++20 compiler"
    return f"{PARTS[name]} {reason} (g++ 11, clang 14, or newer) and run '{reinstall_command()}'"
