"""Text for terminals: control characters are escaped, and file and class names are never read as markup."""

import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console  # imported where it is needed: it is slow to import

__all__ = ["create_console", "escape_control"]

EXECUTED = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories that a terminal may execute, or break lines at
# Property Bidi_Control: they may show a name in another order than it has. Other format characters (Cf), such as the
# joiners of Persian, Indic scripts and emoji, belong to names.
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escape_control(text: str, *, keep: str = "\n") -> str:
    r"""Escape control and bidirectional characters, as of hostile file names, as Python does: ESC becomes ``\x1b``.

    Args:
        text: The text.
        keep: Control characters that stay.
    """
    if text.isprintable():
        return text
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
