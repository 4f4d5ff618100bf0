"""The image files that a table names, with their splits and classes. Importing this module loads no torch."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from ghostnets.data.finder import LeftOut, is_image_name, is_system_name, walk_images
from ghostnets.data.label_table import TABLE_SUFFIXES, LabelTable, TableRow, read_table
from ghostnets.data.labelled import (
    ImageFile,
    LabelledFolder,
    build_labelled_folder,
    check_names,
    inspect_file,
    remove_repeated,
)
from ghostnets.data.layout import find_layout, list_classes, normalize_name, split_of
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES
from ghostnets.terminal import format_count, printable

__all__ = ["find_tables", "list_tables", "read_labelled_tables"]

NAMES = ("labels", "label", "annotations", "metadata")  # table to read if a folder has several
SHOWN = 5  # rows per message


def find_tables(root: Path, network_classes: Collection[str] = ()) -> dict[str, Path]:
    """Find the tables that label the images of a folder.

    Args:
        root: A table, or a folder.
        network_classes: Classes of the network that is evaluated: folders of these names are classes.

    Returns:
        Table of each split, ``{"train": ..., "val": ...}``; ``{"": TABLE}`` for a single one; empty for a folder
        without a table, or whose class folders give the same classes.

    Raises:
        DataError: Tables and class folders label the images differently, or it is not clear which table is meant.
    """
    if root.is_file():
        if root.suffix.lower() not in TABLE_SUFFIXES:
            return {}
        return _pair(root) if split_of(root.stem) == "train" else {split_of(root.stem) or "": root}
    found = list_tables(root)
    if not found:
        return {}
    tables = _choose(root, found)
    classes = _class_folders(root)
    if len(classes) > 1 or not classes.keys().isdisjoint(network_classes):
        return _compare(root, tables, classes)
    if not tables:
        names = ", ".join(path.name for path in found[:SHOWN])
        raise DataError(f"{root} has several tables ({names}); pass the path of the one with the labels.")
    return tables


def list_tables(root: Path) -> list[Path]:
    """The tables directly in a folder, of text files those named like splits; DataError if it cannot be listed."""
    return [
        path
        for path in _list_files(root)
        if path.suffix.lower() in (".csv", ".tsv") or (path.suffix.lower() == ".txt" and _split_of_table(path))
    ]


def read_labelled_tables(
    tables: dict[str, Path], *, network_classes: Collection[str] | None = None, skip_missing: bool = False
) -> LabelledFolder:
    """Find the images that tables name.

    Paths are relative to the table, or to a folder next to it, with or without suffix.

    Args:
        tables: Tables of ``find_tables``.
        network_classes: Classes of the network that is evaluated; None for training (see ``find_labelled``).
        skip_missing: Leave out rows without a label, and files that do not exist, instead of failing.

    Raises:
        DataError: A table cannot be used; the message gives the reason.
    """
    notes: list[str] = []
    images = {split: _Images(path) for split, path in tables.items()}
    read: dict[str, LabelTable] = {}
    for split, path in tables.items():
        try:
            read[split] = read_table(path, images[split].holds)
        except DataError as error:
            if split != "test":
                raise
            notes.append(f"left out: {path.name} ({str(error).rstrip('.')})")  # a competition's unlabelled test images
            continue
        notes += read[split].notes
    multi_label = any(table.multi_label for table in read.values())
    files: list[ImageFile] = []
    for split, table in read.items():
        options = {"multi_label": multi_label, "skip_missing": skip_missing}
        files += _resolve(table, tables[split], split, images[split], notes, **options)
        if len(tables) == 1:
            notes += images[split].describe_unnamed(tables[split])
    if multi_label:
        notes.append(_describe_label_sets(files))
    check_names(files)
    files = _remove_repeated_rows(files, notes, is_training=network_classes is None)
    files, repeated = remove_repeated(files, is_training=network_classes is None)
    root = next(iter(tables.values()))
    if network_classes is not None and not files:
        raise DataError(f"{root} names no images.")
    splits = tuple(split for split in ("train", "val", "test") if any(file.split == split for file in files))
    return build_labelled_folder(
        files, splits, root, notes + repeated, network_classes=network_classes, multi_label=multi_label
    )


def _describe_label_sets(files: Sequence[ImageFile]) -> str:
    """Describe the number of labels of the images of a multi-label table."""
    counts = [len(file.classes) for file in files]
    without = f"; {format_count(counts.count(0), 'image')} without any" if 0 in counts else ""
    mean = sum(counts) / max(1, len(counts))
    return f"multi-label: {mean:.1f} labels per image on average, up to {max(counts, default=0)}{without}"


class _Images:
    """The images in the folder of a table, by path and by name.

    The folder is searched once, when a path is not found as it is written.
    """

    def __init__(self, table: Path) -> None:
        self.folder, self.split = table.parent, split_of(table.stem)
        self.named: set[str] = set()
        self.guessed: list[tuple[str, str]] = []
        self.left_out = LeftOut()
        self._index: dict[str, list[str]] | None = None

    def find(self, cell: str) -> str | None:
        """Path of the image of a cell, or None; raises DataError if several fit."""
        found = self._candidates(cell)
        if len(found) > 1:
            raise DataError(
                f"{cell!r} can be {found[0]} or {found[1]} in {self.folder}; write the path relative to the table."
            )
        return str(Path(self.folder, found[0])) if found else None

    def holds(self, cell: str) -> bool:
        """Whether a cell is the path of exactly one image."""
        return len(self._candidates(cell)) == 1

    def _candidates(self, cell: str) -> list[str]:
        text = cell.strip().removeprefix("file://")
        if not text:
            return []
        for name in (text, text.replace("\\", "/")):
            if is_image_name(name.rpartition("/")[2]) and Path(self.folder, name).is_file():
                return [name]
        name = os.path.normpath(text.replace("\\", "/")).strip("/")
        found = [path for path in self.index.get(name.rpartition("/")[2], ()) if _is_suffix(path, name)]
        if len(found) > 1 and self.split:  # train.csv beside train/ and test/ with images of the same names
            found = [path for path in found if split_of(path.partition("/")[0]) == self.split] or found
        return found

    @property
    def index(self) -> dict[str, list[str]]:
        """Relative paths of all images in the folder, by file name with and without suffix."""
        if self._index is None:
            self._index = defaultdict(list)
            for found in walk_images(str(self.folder), self.left_out):
                if found.error is not None:
                    self.left_out.add(found.error.rstrip("."), found.path)
                else:
                    path = PurePosixPath(os.path.relpath(found.path, self.folder))
                    for key in {path.name, path.stem}:
                        self._index[key].append(str(path))
        return self._index

    def describe_unnamed(self, table: Path) -> list[str]:
        """Describe images that the table does not list, and files that cannot be read."""
        everything = {path for paths in self.index.values() for path in paths}
        unnamed = sorted(everything - {os.path.relpath(path, self.folder) for path in self.named})
        self.left_out.other.clear()  # not images, such as the table itself
        notes = self.left_out.sentences()
        if unnamed:
            number = f", the first of {len(unnamed)}" if len(unnamed) > 1 else ""
            notes.insert(0, f"left out: {printable(unnamed[0])} (not in {table.name}{number})")
        return notes

    def is_other_file(self, cell: str) -> bool:
        """Whether a cell is the path of a file of a format that is not read."""
        names = (cell.strip(), cell.strip().replace("\\", "/"))
        return any(Path(self.folder, name).is_file() for name in names if name)


def _is_suffix(path: str, name: str) -> bool:
    """Whether ``name``, with or without suffix, ends a path, or the path ends the name."""
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        path = str(PurePosixPath(path).with_suffix(""))
    return f"/{path}".endswith(f"/{name}") or f"/{name}".endswith(f"/{path}")


def _resolve(
    table: LabelTable,
    path: Path,
    split: str,
    images: _Images,
    notes: list[str],
    *,
    multi_label: bool,
    skip_missing: bool,
) -> list[ImageFile]:
    """The files of the rows; in multi-label tables a row without a label is an image of no class."""
    files: list[ImageFile] = []
    missing: list[TableRow] = []
    unread: list[TableRow] = []
    unlabelled: list[TableRow] = []
    guessed: list[tuple[str, str]] = []
    for row in table.rows:
        found = images.find(row.path)
        if found is None:
            (unread if images.is_other_file(row.path) else missing).append(row)
        elif not row.labels and not multi_label:
            unlabelled.append(row)
        else:
            images.named.add(found)
            if os.path.normpath(found) != os.path.normpath(path.parent / row.path):
                guessed.append((row.path, found))
            files.append(inspect_file(split or row.split or "train", row.labels, found, str(path.parent)))
    for rows, one, several in (
        (missing, "a file that does not exist", "files that do not exist"),
        (unread, "a file of a format that is not read", "files of formats that are not read"),
        (unlabelled, "an image without a label", "images without a label"),
    ):
        if rows:
            what = one if len(rows) == 1 else f"{len(rows)} {several}"
            sentence = f"{path} names {what} ({_show(rows)})"
            if not skip_missing:
                raise DataError(f"{sentence}; correct the table, or skip them: --skip-corrupt.")
            notes.append(f"left out: {sentence}")
    if guessed:
        text, found = guessed[0]
        number = f", the first of {len(guessed)}" if len(guessed) > 1 else ""
        notes.append(f"{path.name}: {printable(text)} is found by its name, at {printable(found)}{number}")
    return files


def _show(rows: Sequence[TableRow]) -> str:
    shown = "; ".join(f"line {row.line}: {printable(row.path) or 'no path'}" for row in rows[:SHOWN])
    return shown + ("; ..." if len(rows) > SHOWN else "")


def _remove_repeated_rows(files: Iterable[ImageFile], notes: list[str], *, is_training: bool) -> list[ImageFile]:
    """Remove rows that name an image again, with the same label and split; others are rejected in training."""
    first: dict[str, ImageFile] = {}
    kept: list[ImageFile] = []
    repeated = 0
    for file in files:
        other = first.setdefault(os.path.normpath(file.path), file)
        if other is not file and (other.class_name, other.split) == (file.class_name, file.split):
            repeated += 1
            continue
        kept.append(file)
        if other is not file and is_training:
            what = "labels" if other.class_name != file.class_name else "splits"
            one, two = ((f.class_name or "none") if what == "labels" else f.split for f in (other, file))
            raise DataError(f"{file.path} has two {what}, {one} and {two}, in the table; correct one of the rows.")
    if repeated:
        notes.append(f"left out: {'a row' if repeated == 1 else f'{repeated} rows'} naming an image again")
    return kept


def _list_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_system_name(path.name) and path.is_file())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from error


def _pair(train: Path) -> dict[str, Path]:
    """The table of training images and those of the other splits in its folder."""
    tables = {split: path for path in _list_files(train.parent) if (split := _split_of_table(path))}
    return {"train": train, **{split: path for split, path in tables.items() if split != "train"}}


def _split_of_table(path: Path) -> str | None:
    return split_of(path.stem) if path.suffix.lower() in TABLE_SUFFIXES else None


def _choose(root: Path, found: Sequence[Path]) -> dict[str, Path]:
    """Choose the tables of labels among all CSV files of a folder; empty if ambiguous."""
    by_split: dict[str, Path] = {}
    for path in found:
        if (split := _split_of_table(path)) is not None and by_split.setdefault(split, path) is not path:
            raise DataError(f"{root} has two tables of {split} images ({by_split[split].name}, {path.name}); keep one.")
    if "train" in by_split:
        return {split: by_split[split] for split in ("train", "val", "test") if split in by_split}
    named = [path for path in found if _is_named_as_labels(path)]
    chosen = named if len(named) == 1 else found
    return {"": chosen[0]} if len(chosen) == 1 else {}


def _is_named_as_labels(path: Path) -> bool:
    """Whether the name of a table says that it holds labels rather than, for example, predictions."""
    return normalize_name(path.stem).casefold() in NAMES or _split_of_table(path) is not None


def _class_folders(root: Path) -> dict[str, Path]:
    try:
        layout = find_layout(root)
    except DataError:  # no class folders: the table is the only reading
        return {}
    return list_classes(layout.splits["train"]) if "train" in layout.splits else {}


def _compare(root: Path, tables: dict[str, Path], classes: dict[str, Path]) -> dict[str, Path]:
    """Empty, as class folders label the images, if no table that is named as labels labels them otherwise.

    Raises:
        DataError: Such a table does.
    """
    for path in filter(_is_named_as_labels, tables.values()):
        images = _Images(path)
        try:
            table = read_table(path, images.holds)
            found = [(row, images.find(row.path)) for row in table.rows]
        except DataError:
            continue  # a table of something else
        pairs = {
            (row.labels, folder)
            for row, file in found
            if file is not None
            for folder in Path(file).relative_to(root).parts[:-1]
            if folder in classes
        }
        is_one_to_one = len(pairs) == len({labels for labels, _ in pairs}) == len({folder for _, folder in pairs})
        other_class = any(label in classes and label != folder for labels, folder in pairs for label in labels)
        if not is_one_to_one or other_class:
            raise DataError(
                f"{root} can be read in two ways: by its folders ({', '.join(list(classes)[:8])}), or by {path.name};"
                f" give {path}, or move the table elsewhere."
            )
    return {}
