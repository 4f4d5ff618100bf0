"""Text for terminals: control characters are escaped, and file and class names are never read as markup."""

import codecs
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console  # imported where it is needed: it is slow to import

__all__ = ["ESCAPES", "create_console", "escape_control", "format_count", "printable"]

ESCAPES = "ghostnets.escapes"  # error handler of text that an encoding lacks, for ``str.encode`` and ``open``

EXECUTED = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories that a terminal may execute, or break lines at
# Property Bidi_Control: they may show a name in another order than it has. Other format characters (Cf), such as the
# joiners of Persian, Indic scripts and emoji, belong to names.
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""A byte of a file name that is not UTF-8, which Python holds as U+DCxx, becomes ``\xff``; others ``\u65e5``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    escaped = (f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else _backslash(c) for c in characters)
    return "".join(escaped), error.end


def _backslash(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(ESCAPES, _escape)


def printable(text: str) -> str:
    r"""Escape bytes that are not UTF-8, as of file names: ``caf\xe9.png``."""
    return text.encode("utf-8", ESCAPES).decode()


def format_count(number: int, noun: str) -> str:
    """A number with its noun, which takes -es after ss: ``1 image``, ``2,000 images``, ``2 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number:,} {noun}{ending}"


def format_names(names: Iterable[str], limit: int = 8) -> str:
    """The first names, and the number of the others: ``cat, dog and 3 more``."""
    found = list(names)
    hidden = len(found) - limit
    return ", ".join(found[:limit]) + (f" and {hidden} more" if hidden > 0 else "")


def escape_control(text: str, *, keep: str = "\n") -> str:
    r"""Escape control and bidirectional characters, as of hostile file names, as Python does: ESC becomes ``\x1b``.

    Args:
        text: The text.
        keep: Control characters that stay.
    """
    if text.isprintable():
        return text
    text = printable(text)
    return "".join(
        repr(c)[1:-1] if (c in BIDI_CONTROLS or unicodedata.category(c) in EXECUTED) and c not in keep else c
        for c in text
    )


def create_console(**options: Any) -> "Console":
    """A rich console that prints strings as they are, apart from control characters, which it escapes.

    This holds for lines and for the cells of tables. Styles are given by ``rich.text.Text`` and ``style=``.

    Args:
        options: Arguments of ``rich.console.Console``.
    """
    from rich.console import Console

    class TerminalConsole(Console):
        def render_str(self, text: str, **kwargs: Any) -> Any:
            return super().render_str(escape_control(text), **kwargs)

    return TerminalConsole(highlight=False, markup=False, emoji=False, **options)
