"""The image files that a table names, with their splits and classes. Importable without torch."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from ghostnets.data.finder import LeftOut, is_image_name, relative_name, walk_images
from ghostnets.data.label_table import LabelTable, TableRow, read_table
from ghostnets.data.labelled import (
    ImageFile,
    build_labelled_folder,
    check_names,
    inspect_file,
    remove_repeated,
)
from ghostnets.data.labels import LabelledFolder
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES
from ghostnets.terminal import format_count, printable

__all__ = ["TableImages", "read_labelled_tables"]

SHOWN = 5  # rows per message


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
    images = {split: TableImages(path) for split, path in tables.items()}
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
    marked = {name for table in read.values() for row in table.rows for name in row.labels}
    if unmarked := dict.fromkeys(name for table in read.values() for name in table.columns if name not in marked):
        notes.append(f"left out: the classes of columns without a 1: {', '.join(map(printable, unmarked))}")
    multi_label = any(table.multi_label for table in read.values())
    files: list[ImageFile] = []
    for split, table in read.items():
        options = {"multi_label": multi_label, "skip_missing": skip_missing}
        files += _resolve(table, tables[split], split, images[split], notes, **options)
    notes += _describe_unnamed(images, {split: tables[split] for split in read})
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


def _describe_unnamed(images: dict[str, "TableImages"], tables: dict[str, Path]) -> list[str]:
    """Describe the images of the tables' folders that no table lists, and files that cannot be read."""
    notes = []
    for folder in dict.fromkeys(table.parent for table in tables.values()):
        splits = [split for split, table in tables.items() if table.parent == folder]
        searched = images[splits[0]]
        unnamed = searched.unnamed({path for split in splits for path in images[split].named})
        searched.left_out.other.clear()  # not images, such as the table itself
        if unnamed:
            names = ", ".join(tables[split].name for split in splits)
            number = f", the first of {len(unnamed)}" if len(unnamed) > 1 else ""
            notes.append(f"left out: {printable(unnamed[0])} (not in {names}{number})")
        notes += searched.left_out.sentences()
    return notes


class TableImages:
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
                    path = PurePosixPath(relative_name(found.path, self.folder))
                    for key in {path.name, path.stem}:
                        self._index[key].append(str(path))
        return self._index

    def unnamed(self, named: Collection[str]) -> list[str]:
        """Return the relative paths, sorted, of the images in the folder that are not among ``named``."""
        everything = {path for paths in self.index.values() for path in paths}
        return sorted(everything - {relative_name(path, self.folder) for path in named})

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
    images: TableImages,
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
