"""The table of a data set of masks: which colour or value of a pixel is which class. Importing this loads no torch."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets.data.boxes.annotations import read_label_file
from ghostnets.errors import DataError
from ghostnets.terminal import printable

__all__ = ["IGNORED", "ClassTable", "UnknownValuesError", "find_tables", "format_color", "read_table"]

IGNORED = 255
"""Label of pixels that are neither learned nor counted."""
MAX_CLASSES = 255
IGNORED_NAMES = frozenset(
    {"ignore", "ignored", "ignore_label", "unlabeled", "unlabelled", "unlabeled_area", "void", "unclassified"}
)
TABLE_STEMS = frozenset(
    {"classes", "class_dict", "class_dict_seg", "class_names", "names", "labels", "label_colors", "label_colours"}
    | {"labelmap", "label_map", "colors", "colours", "color_map", "colormap", "palette", "meta"}
)
TABLE_SUFFIXES = (".json", ".csv", ".txt")
HINT = 'a line "name,color" and then for each class a line such as "water,#E2A929"'
NAME_KEYS = ("name", "title", "class", "label", "classname", "class_name")
COLOR_KEYS = ("color", "colour", "hex", "rgb", "color_rgb", "hex_color")
VALUE_KEYS = ("value", "index", "id", "pixel", "pixel_value")

Key = int | tuple[int, int, int]  # value of a pixel, or its colour


class UnknownValuesError(DataError):
    """A mask has values that the table does not name."""


@dataclass(frozen=True)
class ClassTable:
    """Classes, and the values or colours of their pixels.

    Attributes:
        names: Names of the classes, in the order of the labels, without ignored ones.
        labels: Value (palette index or gray value) or colour of a pixel -> label, or ``IGNORED``.
        is_colored: Whether pixels are told apart by their colour, and not by their value.
    """

    names: tuple[str, ...]
    labels: Mapping[Key, int]
    is_colored: bool

    @property
    def ignored(self) -> tuple[Key, ...]:
        """Values or colours of ignored pixels."""
        return tuple(key for key, label in self.labels.items() if label == IGNORED)

    def apply(self, mask: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the label of each pixel of a mask, (H, W).

        Raises:
            UnknownValuesError: The table does not name a value or colour; the message names them with their shares.
        """
        codes = pixel_codes(mask, is_colored=self.is_colored)
        known = {_code(key): label for key, label in self.labels.items()}
        if not self.is_colored:
            known.setdefault(IGNORED, IGNORED)
        keys = np.array(sorted(known), np.int64)
        labels = np.array([known[key] for key in keys.tolist()], np.uint8)
        places = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
        if (wrong := keys[places] != codes).any():
            raise UnknownValuesError(
                f"{describe_codes(codes[wrong], codes.size, is_colored=self.is_colored)} not in the table of classes"
            )
        return labels[places]


def format_color(key: Key) -> str:
    """
    >>> format_color((132, 41, 246)), format_color(3)
    ('#8429F6', '3')
    """
    return str(key) if isinstance(key, int) else "#{:02X}{:02X}{:02X}".format(*key)


def pixel_codes(mask: Image.Image, *, is_colored: bool) -> npt.NDArray[np.int64]:
    """Return a number for each pixel, (H, W): its value, or its colour as 0xRRGGBB."""
    if not is_colored and mask.mode in ("P", "L", "1", "I", "I;16", "I;16B", "I;16L"):
        return np.asarray(mask).astype(np.int64)
    if not is_colored and mask.mode == "F":
        values = np.asarray(mask)
        if not np.array_equal(values, np.clip(values, 0, 65535).round()):
            raise DataError("it has values that are not whole numbers from 0 to 65535")
        return values.astype(np.int64)
    colors = np.asarray(mask.convert("RGB")).astype(np.int64)
    if is_colored:
        return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    if (colors != colors[..., :1]).any():
        raise DataError(
            f"it has colors (mode {mask.mode}), and the table of classes has values, not colors; give the colors"
        )
    return colors[..., 0]


def describe_codes(codes: npt.NDArray[np.int64], pixels: int, *, is_colored: bool) -> str:
    """Name the most frequent values or colours with their share of the pixels, and a verb: "#000000 (3.2 %) is"."""
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    found = [f"{_format_code(int(values[i]), is_colored)} ({counts[i] / pixels:.2%})" for i in order]
    more = [f"{len(values) - len(found)} more"] if len(values) > len(found) else []
    kind = "color" if is_colored else "value"
    return f"{kind}{'s' * (len(values) > 1)} {', '.join([*found, *more])} {'is' if len(values) == 1 else 'are'}"


def _format_code(code: int, is_colored: bool) -> str:
    return format_color((code >> 16, code >> 8 & 255, code & 255)) if is_colored else str(code)


def _code(key: Key) -> int:
    return key if isinstance(key, int) else key[0] << 16 | key[1] << 8 | key[2]


def find_tables(folders: Iterable[Path]) -> list[Path]:
    """Files in these folders that are named like a table of classes, such as ``classes.json`` or ``class_dict.csv``."""
    found: dict[Path, None] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = re.sub(r"[ .-]+", "_", path.stem.lower())
            if path.suffix.lower() in TABLE_SUFFIXES and name in TABLE_STEMS and path.is_file():
                found[path] = None
    return list(found)


def read_table(path: Path) -> ClassTable:
    """Read a table of classes.

    JSON: objects with a name (or title) and a color (or value), as a list or under ``classes``; or an object name ->
    color or value, or value -> name. CSV: columns name and r, g, b, or color, or value. Text: a name in each line; or
    ``name:r,g,b:...`` (CVAT) or ``r g b name`` (CamVid). Names like ``unlabelled`` and ``void`` are ignored pixels.

    Raises:
        DataError: The file cannot be read, has no classes, or two classes with the same colour.
    """
    text = read_label_file(path)
    try:
        readers = {".json": _read_json, ".csv": _read_csv, ".txt": _read_text}
        rows = readers[path.suffix.lower()](text)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error, RecursionError) as error:
        raise DataError(
            f"{printable(str(path))} is not a table of classes ({error}); give a CSV file with {HINT}."
        ) from error
    return _make_table(rows, path)


def _make_table(rows: Sequence[tuple[str, Key]], path: Path) -> ClassTable:
    names: list[str] = []
    labels: dict[Key, int] = {}
    for name, key in rows:
        is_ignored = re.sub(r"[ -]+", "_", name.lower()) in IGNORED_NAMES
        if not is_ignored and name not in names:
            names.append(name)
        label = IGNORED if is_ignored else names.index(name)
        if labels.setdefault(key, label) != label:
            raise DataError(f"{printable(str(path))} gives {format_color(key)} to two classes; correct one of them.")
    kinds = {type(key) for key in labels}
    if not names or len(names) > MAX_CLASSES or len(kinds) > 1:
        found = "colors and values" if len(kinds) > 1 else f"{len(names)} classes"
        raise DataError(
            f"{printable(str(path))} has {found}; a table has 1 to {MAX_CLASSES} classes, with a color each or a value"
            f" each: {HINT}."
        )
    return ClassTable(tuple(names), labels, kinds == {tuple})


def _read_json(text: str) -> list[tuple[str, Key]]:
    content: Any = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get("classes"), list | dict):
        content = content["classes"]
    if isinstance(content, dict):
        if all(isinstance(value, str) and not _is_color(value) for value in content.values()):
            return [(name, _parse_key(key)) for key, name in content.items()]  # value or colour -> name
        return [(name, _parse_key(value)) for name, value in content.items()]
    if not isinstance(content, list):
        raise ValueError("it holds neither a list nor an object")
    if all(isinstance(row, str) for row in content):
        return [(name, index) for index, name in enumerate(content)]
    return [_parse_row(row, index) for index, row in enumerate(content)]


def _read_csv(text: str) -> list[tuple[str, Key]]:
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    table = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    header = [re.sub(r"\W+", "_", cell.strip().lower()) for cell in table[0]] if table else []
    if not set(header) & {*NAME_KEYS, ""}:
        raise ValueError(f"its first line is {lines[0][:60] if lines else 'missing'!r}, not the names of columns")
    rows = [dict(zip(header, (cell.strip() for cell in row), strict=False)) for row in table[1:]]
    return [_parse_row(row, index) for index, row in enumerate(rows)]


def _read_text(text: str) -> list[tuple[str, Key]]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    cvat = [re.fullmatch(r"(.+?):(\d+),\s*(\d+),\s*(\d+)(:.*)?", line) for line in lines]
    camvid = [re.fullmatch(r"(\d+)[ \t]+(\d+)[ \t]+(\d+)[ \t]+(\S.*)", line) for line in lines]
    if lines and all(cvat):
        return [(m[1], _parse_key([int(m[2]), int(m[3]), int(m[4])])) for m in cvat if m]
    if lines and all(camvid):
        return [(m[4], _parse_key([int(m[1]), int(m[2]), int(m[3])])) for m in camvid if m]
    return [(name, index) for index, name in enumerate(lines)]


def _parse_row(row: Mapping[str, Any], index: int) -> tuple[str, Key]:
    values = {str(key).lower(): value for key, value in row.items()}
    name = next((values[key] for key in (*NAME_KEYS, "") if values.get(key) not in (None, "")), None)
    if name is None:
        raise ValueError(f"entry {index + 1} has no name")
    for keys in (("r", "g", "b"), ("red", "green", "blue")):
        if all(key in values for key in keys):
            return str(name), _parse_key([int(values[key]) for key in keys])
    found = next((values[key] for key in (*COLOR_KEYS, *VALUE_KEYS) if values.get(key) not in (None, "")), index)
    return str(name), _parse_key(found)


def _is_color(text: str) -> bool:
    return bool(re.fullmatch(r"#?[0-9a-fA-F]{6}|[\[(]?\d+[ ,]+\d+[ ,]+\d+[\])]?", text.strip()))


def _parse_key(value: Any) -> Key:
    """Parse a value or a colour: 3, "3", "#8429F6", "8429F6", [132, 41, 246], "132, 41, 246"."""
    if isinstance(value, str):
        text = value.strip()
        if text.isdigit() and len(text) < 6:
            value = int(text)
        elif not _is_color(text):
            raise ValueError(f"{text[:40]!r} is neither a color such as #8429F6 nor a value from 0 to 65535")
        elif len(parts := re.findall(r"\d+", text)) == 3 and not text.startswith("#"):
            value = [int(part) for part in parts]
        else:
            text = text.removeprefix("#")
            value = [int(text[place : place + 2], 16) for place in (0, 2, 4)]
    numbers = [value] if isinstance(value, int) else list(value)[:3]
    most = 65535 if isinstance(value, int) else 255
    if len(numbers) not in (1, 3) or any(type(number) is not int or not 0 <= number <= most for number in numbers):
        raise ValueError(f"{value!r} is neither a color nor a value")
    return numbers[0] if isinstance(value, int) else (numbers[0], numbers[1], numbers[2])
