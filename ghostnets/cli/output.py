"""Output of the commands: results on stdout, messages and progress on stderr."""

import json
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console  # imported by the functions that need it: it is slow to import

__all__ = ["escape_control", "message", "print_json", "progress_console", "result_console"]

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that a terminal may execute or hide


def result_console() -> "Console":
    """Console for results on stdout; 160 columns wide if stdout is not a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def progress_console() -> "Console":
    """Console for progress and messages on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def message(sentence: str, *, kind: str = "note") -> None:
    """Print one sentence on stderr, unwrapped, with the rank of the process if that is not 0.

    Args:
        sentence: The sentence.
        kind: ``"note"`` or ``"error"``.
    """
    from rich.text import Text

    style = "bold red" if kind == "error" else "bold"
    rank = os.environ.get("RANK", "0")
    sentence = escape_control(sentence)
    text = Text.assemble((f"{kind}: ", style), sentence if rank == "0" else f"(process {rank}) {sentence}")
    progress_console().print(text, soft_wrap=True)


def escape_control(text: str) -> str:
    """Escape control and bidirectional formatting characters, as of hostile file names; line feeds stay."""
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) in HIDDEN and character != "\n" else character
        for character in text
    )


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(value, indent=2))
