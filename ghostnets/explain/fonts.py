"""Class names in matplotlib figures: fonts of other scripts where installed, else numbers."""

import unicodedata
from collections.abc import Sequence

from ghostnets.errors import require

__all__ = ["drawable_labels", "find_fonts", "shorten"]

FALLBACKS = (
    "DejaVu Sans",  # part of matplotlib
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic",
    "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
    "Noto Sans Thai", "Noto Sans Ethiopic", "Noto Emoji", "Segoe UI Emoji", "Segoe UI Symbol", "Symbola",
)  # fmt: skip


def find_fonts() -> list[str]:
    """Names of the installed ``FALLBACKS``, in their order; DejaVu Sans comes with matplotlib."""
    installed = set(require("matplotlib.font_manager", extra="explain").get_font_names())
    return [name for name in FALLBACKS if name in installed]


def drawable_labels(names: Sequence[str], numbers: Sequence[int], fonts: Sequence[str]) -> list[str]:
    """Labels that matplotlib can draw: the name, or ``no. N`` where it cannot.

    Matplotlib neither joins letters nor reorders text, so names in Arabic, Hebrew and Indic scripts get numbers too.

    Args:
        names: Class names.
        numbers: Number of each class, from 1.
        fonts: Names of the fonts in use.
    """
    manager = require("matplotlib.font_manager", extra="explain")
    known: set[int] = set()
    for font in fonts:
        path = manager.findfont(manager.FontProperties(family=font))
        known |= manager.get_font(path).get_charmap().keys()
    labels = []
    for name, number in zip(names, numbers, strict=True):
        text = unicodedata.normalize("NFC", name)
        is_drawable = all(ord(c) in known and c.isprintable() and not _needs_shaping(c) for c in text)
        labels.append(shorten(text) if is_drawable else f"no. {number}")
    return labels


def shorten(text: str, limit: int = 28) -> str:
    """The text, with its middle left out if it is longer than ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2 - 1) :]}"


def _needs_shaping(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character).startswith("M")
