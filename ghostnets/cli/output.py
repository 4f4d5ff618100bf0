"""Where the commands print: results on stdout, everything else on stderr."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console  # not wanted by every command, and it takes a while

__all__ = ["message", "print_json", "progress_console", "result_console"]


def result_console() -> "Console":
    """For tables; what a pipe receives is not wrapped to a terminal's width."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def progress_console() -> "Console":
    """For progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def message(sentence: str, *, kind: str = "note") -> None:
    """One sentence on stderr, unwrapped; ``kind`` is ``"note"`` or ``"error"``. It tells which process of several."""
    from rich.text import Text

    style = "bold red" if kind == "error" else "bold"
    rank = os.environ.get("RANK", "0")
    text = Text.assemble((f"{kind}: ", style), sentence if rank == "0" else f"(process {rank}) {sentence}")
    progress_console().print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """A result as JSON on stdout."""
    print(json.dumps(value, indent=2))
