"""The tables that label the images of a folder: which text files they are. Importable without torch."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ghostnets.data.finder import holds_image, is_system_name
from ghostnets.data.label_table import TABLE_SUFFIXES, read_table
from ghostnets.data.labelled_table import TableImages
from ghostnets.data.layout import find_layout, list_classes, normalize_name, split_folders, split_of
from ghostnets.errors import DataError

__all__ = ["find_tables"]

NAMES = ("labels", "label", "annotations", "metadata")  # table to read if a folder has several
SHOWN = 5  # names per message


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
    found = _list_tables(root)
    if not found:
        return _find_in_splits(root)
    tables = _choose(root, found)
    classes = _class_folders(root)
    if len(classes) > 1 or not classes.keys().isdisjoint(network_classes):
        return _compare(root, tables, classes)
    if not tables:
        names = ", ".join(path.name for path in found[:SHOWN])
        raise DataError(f"{root} has several tables ({names}); pass the path of the one with the labels.")
    return tables


def _find_in_splits(root: Path) -> dict[str, Path]:
    """The tables of ``train/`` and other splits without class folders, which hold one each next to their images."""
    found: dict[str, Path] = {}
    for split, folder in split_folders(root, max_depth=0).items():
        tables = _list_tables(folder)
        if len(tables) == 1 and not any(holds_image(str(path)) for path in list_classes(folder).values()):
            found[split] = tables[0]
    return found if "train" in found else {}


def _list_tables(root: Path) -> list[Path]:
    """The tables directly in a folder, of text files those named like splits; DataError if it cannot be listed."""
    return [
        path
        for path in _list_files(root)
        if path.suffix.lower() in (".csv", ".tsv") or (path.suffix.lower() == ".txt" and _split_of_table(path))
    ]


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
        images = TableImages(path)
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
