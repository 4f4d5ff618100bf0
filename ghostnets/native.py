"""The compiled modules, which are missing if the package was installed without a compiler."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ghostnets.errors import EngineError, reinstall_command

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
    except ImportError as error:
        raise EngineError(f"{_explain_missing(name)}, or run the network in torch.") from error


def missing_native(name: str) -> str | None:
    """Explain that a compiled module was not built, with the command that builds it; None if it was built."""
    if find_spec(name) is not None:
        return None
    return f"{_explain_missing(name)}; until then, torch does the same more slowly."


def _explain_missing(name: str) -> str:
    return (
        f"{PARTS[name]} could not be built when ghostnets was installed, as there was no C++20 compiler; install one"
        f" (g++ 11, clang 14, or newer) and run '{reinstall_command()}'"
    )
