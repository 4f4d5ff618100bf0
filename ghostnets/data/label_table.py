"""A table of labels as people write it: a text file with a path and a label per row. Importable without torch.

Separator, header and columns are recognised; what cannot be recognised is rejected with the header that would be.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ghostnets.data.layout import is_utf8, normalize_name, split_of
from ghostnets.data.text import decode_text
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES
from ghostnets.preprocessing.content import read_content
from ghostnets.terminal import format_names, printable

__all__ = ["TABLE_SUFFIXES", "LabelTable", "TableRow", "read_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
SAMPLE = 200  # rows from which separator and columns are recognised
PATH_COLUMNS = (
    "path", "filepath", "filepaths", "file", "filename", "filenames", "image", "imagepath", "img", "imgpath",
    "imagename", "imagefile", "imageindex", "fname", "photo", "picture", "imageid", "id", "name",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "classname", "labelname", "category", "target", "tag", "tags", "y", "species", "breed",
    "diagnosis", "dx", "classid", "findinglabels",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "subset", "set", "partition", "dataset", "phase")
SPLIT_FLAGS = {  # columns of true and false, such as fastai's is_valid: splits of false and true
    "isvalid": ("train", "val"), "isval": ("train", "val"), "isvalidation": ("train", "val"),
    "istest": ("train", "test"), "istrain": ("val", "train"), "istraining": ("val", "train"),
}  # fmt: skip
FLAGS = {"false": 0, "0": 0, "0.0": 0, "no": 0, "true": 1, "1": 1, "1.0": 1, "yes": 1}
MARKS = {"0": False, "0.0": False, "1": True, "1.0": True}  # cells of a column of one class
HINT = "give it a first line with the columns path and label"


class TableRow(NamedTuple):
    """A row: number of its line, path as written, labels, and its split if the table has such a column."""

    line: int
    path: str
    labels: tuple[str, ...]
    split: str | None


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table.

    Attributes:
        rows: Rows in order.
        multi_label: Whether a row may have several labels, or none.
        notes: What was guessed or not read, one sentence each.
        columns: Classes that have a column of 0 and 1; empty for a column of labels.
    """

    rows: tuple[TableRow, ...]
    multi_label: bool
    notes: tuple[str, ...]
    columns: tuple[str, ...]


class _Columns(NamedTuple):
    path: int
    labels: tuple[int, ...]  # several are 0 or 1 for one class each
    split: int | None
    names: tuple[str, ...] | None  # of the header


def read_table(path: Path, is_image: Callable[[str], bool]) -> LabelTable:
    """Read a table.

    Args:
        path: The file; UTF-8 or UTF-16, with or without a byte-order mark.
        is_image: Whether a cell is the path of an existing image.

    Raises:
        DataError: It is not such a table: no text, rows of different length, unknown columns.
    """
    lines = _quote_paths(_read_lines(path), path)
    delimiter = _find_delimiter(lines, path)
    rows = _split_rows(lines, delimiter, path)
    columns = _find_columns(rows[: SAMPLE + 1], path, is_image)
    body = rows[1:] if columns.names is not None else rows
    notes = []
    if columns.names is not None:
        used = {columns.path, columns.split, *columns.labels}
        unread = [name for number, name in enumerate(columns.names) if number not in used and name.strip()]
        read = [columns.names[number] for number in (columns.path, *columns.labels[:3])]
        if unread:
            notes.append(f"{path.name}: the columns {', '.join(read)} are read, {_join(unread)} are not")
    else:
        notes.append(
            f"{path.name} has no header: column {columns.path + 1} is read as the path,"
            f" column {columns.labels[0] + 1} as the label"
        )
    if (flag := _split_flag(columns)) is not None:
        notes.append(
            f"{path.name}: {flag[0].strip()} is read as the split, true as {flag[1][1]}, false as {flag[1][0]}"
        )
    names = _name_columns(columns)
    _check_marks(body, columns, names, path)
    parse, multi_label = _label_parser(body, columns, names, delimiter)
    parsed = tuple(
        TableRow(line, cells[columns.path].strip(), parse(cells), _parse_split(cells, columns, line, path))
        for line, cells in body
    )
    return LabelTable(parsed, multi_label, tuple(notes), names)


def _read_lines(path: Path) -> list[str]:
    try:
        content = read_content(path)
        with decode_text(io.BytesIO(content)) as stream:
            lines = stream.read().splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise DataError(f"the table {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if any("\0" in line for line in lines[:SAMPLE]):
        raise DataError(f"{path} is not a text file; a table of labels is a CSV file with the columns path and label.")
    if wrong := [number for number, line in enumerate(lines, 1) if not is_utf8(line)]:
        raise DataError(f"{path}, line {wrong[0]}: it is not UTF-8; save the table as UTF-8.")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty; a table of labels has one row per image.")
    return lines


def _quote_paths(lines: Sequence[str], path: Path) -> list[str]:
    """Quote the paths of existing files that contain blanks, in a list of paths and labels separated by blanks."""
    if path.suffix.lower() != ".txt":
        return list(lines)
    quoted = []
    for line in lines:
        name, _, label = line.rstrip().rpartition(" ")
        has_blanks = " " in name.strip() and '"' not in line
        is_path = has_blanks and (path.parent / name.strip().replace("\\", "/")).is_file()
        quoted.append(f'"{name.strip()}" {label}\n' if is_path else line)
    return quoted


def _find_delimiter(lines: Sequence[str], path: Path) -> str:
    """The separator that gives a known header, or else the first that divides all rows alike."""
    sample = [line for line in lines[: 2 * SAMPLE] if line.strip()][:SAMPLE]
    candidates = (",", "\t", ";", "|", *((" ",) if path.suffix.lower() == ".txt" else ()))
    split = {delimiter: _parse(sample, delimiter, path) for delimiter in candidates}
    for delimiter, rows in split.items():
        names = [_normalize(cell) for cell in rows[0][1]]
        if len(names) > 1 and set(names) & set(PATH_COLUMNS) and set(names) & {*LABEL_COLUMNS, *SPLIT_COLUMNS}:
            return delimiter
    for delimiter, rows in split.items():
        if len(widths := {len(cells) for _, cells in rows}) == 1 and widths.pop() > 1:
            return delimiter
    for delimiter, rows in split.items():
        if len(rows[0][1]) > 1:
            line, cells = next(row for row in rows if len(row[1]) != len(rows[0][1]))
            raise DataError(
                f"{path} has {len(rows[0][1])} columns in its first line, but {len(cells)} in line {line}; quote cells"
                f" that contain {delimiter!r}."
            )
    raise DataError(f"{path} has a single column; a table of labels has a path and a label in each row.")


def _split_rows(lines: Sequence[str], delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    rows = _parse(lines, delimiter, path)
    width = len(rows[0][1])
    for line, cells in rows:
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        cells += [""] * (width - len(cells))
        if len(cells) > width:
            raise DataError(
                f"{path} has {width} columns, but {len(cells)} in line {line}; quote cells that contain {delimiter!r}."
            )
    return rows


def _parse(lines: Sequence[str], delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    """Rows with the numbers of their last lines; blank lines are skipped."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table (line {reader.line_num}: {error}).") from error


def _find_columns(rows: Sequence[tuple[int, list[str]]], path: Path, is_image: Callable[[str], bool]) -> _Columns:
    first, body = rows[0][1], [cells for _, cells in rows[1:]]
    names = [_normalize(cell) for cell in first]
    looks_like_path = [is_image(cell) or _has_image_suffix(cell) for cell in first]
    has_header = not any(looks_like_path)
    if has_header and not body:
        raise DataError(f"{path} has a first line, but no rows; add one row per image.")
    if not has_header:
        body.insert(0, first)
        names = [""] * len(first)
    position = _first(names, PATH_COLUMNS)
    if position is None:
        found = [column for column in range(len(first)) if _share(body, column, _has_image_suffix) >= 0.5]
        found = found or [column for column in range(len(first)) if _share(body, column, is_image) >= 0.5]
        if not found:
            raise DataError(f"{path} has no column of image paths (it has {_join(first)}); {HINT}.")
        position = found[0]
    split = _split_column(names, body)
    others = [c for c in range(len(first)) if c not in (position, split) and not _is_index(body, c, names)]
    if split is None and not has_header:
        split = next((c for c in others if all(split_of(cells[c].strip()) for cells in body)), None)
        others = [column for column in others if column != split]
    label = _first(names, LABEL_COLUMNS)
    labels = (label,) if label is not None and label != position else _label_columns(others, body)
    if not labels:
        raise DataError(
            f"{path} does not say which column is the label (it has {_join(first)}); {HINT}."
            if len(first) > 1
            else f"{path} has no labels; {HINT}."
        )
    return _Columns(position, labels, split, tuple(first) if has_header else None)


def _label_columns(others: Sequence[int], body: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """The only column left, or all if they are 0 or 1 for one class each."""
    if len(others) == 1:
        return (others[0],)
    is_one_hot = all(cells[column].strip() in MARKS for cells in body for column in others)
    return tuple(others) if others and is_one_hot else ()


def _name_columns(columns: _Columns) -> tuple[str, ...]:
    """Name the class of each column of 0 and 1, without a header by its number; empty for a column of labels."""
    if len(columns.labels) == 1:
        return ()
    return tuple(
        normalize_name(columns.names[column].strip()) if columns.names else str(number)
        for number, column in enumerate(columns.labels)
    )


def _check_marks(body: Sequence[tuple[int, list[str]]], columns: _Columns, names: Sequence[str], path: Path) -> None:
    """Raise DataError for a cell other than 0 and 1 in the column of a class, such as -1 or blank for unknown."""
    for line, cells in body:
        for name, column in zip(names, columns.labels, strict=False):  # no names for a column of labels
            if (cell := cells[column].strip()) not in MARKS:
                raise DataError(f"{path}, line {line}: {printable(name)} is {cell!r}, but its column is of 0 and 1.")


def _label_parser(
    body: Sequence[tuple[int, list[str]]], columns: _Columns, names: Sequence[str], delimiter: str
) -> tuple[Callable[[Sequence[str]], tuple[str, ...]], bool]:
    """Function from the cells of a row to its labels, and whether there may be several."""
    if names:

        def select(cells: Sequence[str]) -> tuple[str, ...]:
            marked = zip(names, columns.labels, strict=True)
            return tuple(name for name, column in marked if MARKS[cells[column].strip()])

        return select, any(len(select(cells)) != 1 for _, cells in body)
    (column,) = columns.labels
    separator = _label_separator([cells[column] for _, cells in body], columns, delimiter)
    if separator is None:
        return lambda cells: tuple(filter(None, [normalize_name(cells[column].strip())])), False

    def divide(cells: Sequence[str]) -> tuple[str, ...]:
        names = (normalize_name(name.strip()) for name in re.split(separator, cells[column]))
        return tuple(sorted({name for name in names if name}))

    return divide, True


def _label_separator(cells: Sequence[str], columns: _Columns, delimiter: str) -> str | None:
    """Pattern of the separator of several labels in a cell, or None.

    ``;`` and ``|`` always, blanks between numbers; commas and other blanks only below the headers labels and tags, as
    names of classes have them.
    """
    found = [mark for mark in ";|" if mark != delimiter and any(mark in cell for cell in cells)]
    if found:
        return f"[{''.join(found)}]"
    if any(" " in cell.strip() for cell in cells) and all(re.fullmatch(r"[\d\s]*", cell) for cell in cells):
        return r"\s+"
    if columns.names is None or _normalize(columns.names[columns.labels[0]]) not in ("labels", "tags"):
        return None
    if any("," in cell for cell in cells):
        return ","
    distinct = {cell.strip() for cell in cells}
    words = {word for cell in distinct for word in cell.split()}
    return r"\s+" if len(words) < len(distinct) and any(len(cell.split()) > 1 for cell in distinct) else None


def _split_column(names: Sequence[str], body: Sequence[Sequence[str]]) -> int | None:
    """The column of a known name with a known value: names of splits, or true and false."""
    split = _first(names, SPLIT_COLUMNS)
    if split is not None and any(split_of(cells[split].strip()) for cells in body):
        return split
    flag = _first(names, tuple(SPLIT_FLAGS))
    return flag if flag is not None and any(cells[flag].strip().casefold() in FLAGS for cells in body) else None


def _split_flag(columns: _Columns) -> tuple[str, tuple[str, str]] | None:
    """Name of the column of true and false that gives the split, and the splits of false and true."""
    if columns.split is None or columns.names is None:
        return None
    name = columns.names[columns.split]
    splits = SPLIT_FLAGS.get(_normalize(name))
    return (name, splits) if splits is not None else None


def _parse_split(cells: Sequence[str], columns: _Columns, line: int, path: Path) -> str | None:
    if columns.split is None:
        return None
    cell = cells[columns.split].strip()
    if (flag := _split_flag(columns)) is not None:
        if (value := FLAGS.get(cell.casefold())) is None:
            raise DataError(f"{path}, line {line}: {flag[0].strip()} is {cell!r}; it must be true or false.")
        return flag[1][value]
    if (split := split_of(cell)) is None:
        raise DataError(f"{path}, line {line}: the split is {cell!r}; it must be train, val or test.")
    return split


def _first(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _normalize(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _has_image_suffix(cell: str) -> bool:
    return PurePosixPath(cell.strip().replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _share(body: Sequence[Sequence[str]], column: int, holds: Callable[[str], bool]) -> float:
    return sum(holds(cells[column]) for cells in body) / len(body)


def _is_index(body: Sequence[Sequence[str]], column: int, names: Sequence[str]) -> bool:
    """Whether a column counts the rows, as data frames write it."""
    if names[column] not in ("", "unnamed0", "index") or len(names) < 3 or column:
        return False
    cells = [cells[column].strip() for cells in body]
    return cells in ([str(i) for i in range(len(cells))], [str(i + 1) for i in range(len(cells))])


def _join(names: Sequence[str]) -> str:
    shown = [printable(name.strip() or "(no name)") for name in names]
    return format_names(shown)
