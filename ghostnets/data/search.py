"""The labelled images of a folder, a table, tars, or Arrow or Parquet files. Importing this module loads no torch."""

from collections.abc import Collection
from pathlib import Path

from ghostnets.data.labelled import LabelledFolder, find_labelled
from ghostnets.data.labelled_arrow import find_arrow, read_labelled_arrow
from ghostnets.data.labelled_table import find_tables, read_labelled_tables
from ghostnets.data.labelled_tars import find_tars, read_labelled_tars
from ghostnets.errors import DataError

__all__ = ["find_labelled_images"]


def find_labelled_images(
    root: Path, *, network_classes: Collection[str] | None = None, skip_unreadable: bool = False
) -> LabelledFolder:
    """Find labelled images, however they are stored.

    Args:
        root: Folder, table or tar; see ``ImageFolder`` for the layouts.
        network_classes: Classes of the network that is evaluated, for the rules of evaluation; None for training.
        skip_unreadable: Leave out what cannot be listed, is missing or has no label, instead of failing.

    Raises:
        DataError: There is no such path, or the images cannot be used.
    """
    if not root.exists():
        raise DataError(f"there is no folder {root}; give the path of a folder with one subfolder per class.")
    if arrow := find_arrow(root):
        return read_labelled_arrow(arrow, network_classes=network_classes, skip_unlabelled=skip_unreadable)
    if tars := find_tars(root):
        return read_labelled_tars(tars, network_classes=network_classes, skip_unlabelled=skip_unreadable)
    if tables := find_tables(root, network_classes or ()):
        return read_labelled_tables(tables, network_classes=network_classes, skip_missing=skip_unreadable)
    if root.is_dir():
        return find_labelled(root, network_classes=network_classes, skip_unreadable=skip_unreadable)
    raise DataError(
        f"{root} is a file; give the path of a folder with one subfolder per class, of a table (.csv, .tsv, .txt) with"
        " the columns path and label, or of an archive."
    )
