"""The labelled images of a folder, a table, tars, or Arrow or Parquet files. Importable without torch."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ghostnets.data.finder import is_system_name
from ghostnets.data.labelled import find_labelled
from ghostnets.data.labelled_arrow import find_arrow, read_labelled_arrow
from ghostnets.data.labelled_table import read_labelled_tables
from ghostnets.data.labelled_tars import find_tars, read_labelled_tars
from ghostnets.data.labels import LabelledFolder
from ghostnets.data.table_search import find_tables
from ghostnets.errors import DataError
from ghostnets.terminal import printable

__all__ = ["find_labelled_images"]

MAX_DEPTH = 3  # folders that may enclose the data


def find_labelled_images(
    root: Path, *, network_classes: Collection[str] | None = None, skip_unreadable: bool = False
) -> LabelledFolder:
    """Find labelled images, however they are stored.

    Args:
        root: Folder, table or tar; see ``ImageFolder`` for the layouts.
        network_classes: Classes of the network that is evaluated, for the rules of evaluation; None for training.
        skip_unreadable: Skip unlistable folders, missing files and images without a label instead of failing.

    Raises:
        DataError: The path does not exist, or the images cannot be used.
    """
    if not root.exists():
        raise DataError(f"there is no folder {root}; pass the path of a folder with one subfolder per class.")
    for place in (root, *_walk_single_folders(root)):
        if found := _find_stored(place, network_classes, skip_unreadable):
            note = f"the data are read from {printable(str(place))}, the only folder of {printable(str(root))}"
            return found if place == root else replace(found, notes=(note, *found.notes))
    if root.is_dir():
        return find_labelled(root, network_classes=network_classes, skip_unreadable=skip_unreadable)
    raise DataError(
        f"{root} is a file; pass the path of a folder with one subfolder per class, of a table (.csv, .tsv, .txt) with"
        " the columns path and label, or of an archive."
    )


def _find_stored(root: Path, network_classes: Collection[str] | None, skip_unreadable: bool) -> LabelledFolder | None:
    """Find labelled images in Arrow files, in tars, or listed in tables; None if they are stored otherwise."""
    if arrow := find_arrow(root):
        return read_labelled_arrow(arrow, network_classes=network_classes, skip_unlabelled=skip_unreadable)
    if tars := find_tars(root):
        return read_labelled_tars(tars, network_classes=network_classes, skip_unlabelled=skip_unreadable)
    if tables := find_tables(root, network_classes or ()):
        return read_labelled_tables(tables, network_classes=network_classes, skip_missing=skip_unreadable)
    return None


def _walk_single_folders(root: Path) -> Iterator[Path]:
    """Yield the nested folders of ``root``, as long as each is the only entry of its parent, as in many archives."""
    for _ in range(MAX_DEPTH):
        entries = [path for path in root.iterdir() if not is_system_name(path.name)] if root.is_dir() else []
        if len(entries) != 1 or not entries[0].is_dir():
            return
        root = entries[0]
        yield root
