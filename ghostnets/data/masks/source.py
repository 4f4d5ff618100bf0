"""A data set of images with masks, recognised by its layout. Importing this loads no torch."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ghostnets.cores import usable_cores
from ghostnets.data.boxes.annotations import BrokenLabels, read_image_size
from ghostnets.data.boxes.coco import find_coco
from ghostnets.data.masks.coco import read_coco_masks
from ghostnets.data.masks.layout import MaskPair, find_mask_folders, find_pairs, split_pairs
from ghostnets.data.masks.table import (
    IGNORED,
    ClassTable,
    describe_codes,
    find_tables,
    format_color,
    pixel_codes,
    read_table,
)
from ghostnets.errors import DataError, ImageError
from ghostnets.preprocessing import MAX_PIXELS
from ghostnets.terminal import format_count, format_names, printable

__all__ = ["MaskSource", "describe_mask_layout", "open_masks"]

MAX_VALUES = 255
COLORED_MODES = ("RGB", "RGBA")


@dataclass(frozen=True)
class MaskSource:
    """Images with masks in splits.

    Attributes:
        name: Name of the folder.
        table: Classes, with the colours or values of their pixels.
        splits: Images of ``"train"``, ``"val"`` and ``"test"``, where they exist.
        pixels: Pixels of each class by split, int64 (N, classes), in the order of the images.
        sizes: Width and height of each image by split.
        notes: Assumptions and exclusions, one sentence each.
        broken: A sentence for each broken mask, label or image, which is left out.
    """

    name: str
    table: ClassTable
    splits: dict[str, tuple[MaskPair, ...]]
    pixels: dict[str, npt.NDArray[np.int64]]
    sizes: dict[str, tuple[tuple[int, int], ...]]
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Describe splits, classes and notes for the user, one sentence each."""
        images = ", ".join(f"{split} {len(found):,}" for split, found in self.splits.items())
        left_out = (f"left out: {sentence}" for sentence in self.broken)
        return [f"masks, images: {images}", *map(self.describe_shares, self.splits), *self.notes, *left_out]

    def describe_shares(self, split: str) -> str:
        """The share of each class of the labelled pixels of a split, and that of the ignored ones of all pixels."""
        counts = self.pixels[split].sum(axis=0)
        labelled = int(counts.sum())
        shares = (
            f"{name} {count / max(1, labelled):.1%}" for name, count in zip(self.table.names, counts, strict=True)
        )
        total = sum(width * height for width, height in self.sizes[split])
        value = "" if self.table.is_colored else f" (value {IGNORED})"
        ignored = f"; {1 - labelled / total:.1%} of all pixels are ignored{value}" if labelled < total else ""
        return f"labelled pixels in {split}: {', '.join(shares)}{ignored}"

    def read_mask(self, pair: MaskPair, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """Class of each pixel of an image, (H, W), with ``IGNORED``; raises ImageError or DataError."""
        return self.table.apply(pair.decode_mask(max_pixels=max_pixels))

    def select(self, masks: dict[str, tuple[str, npt.NDArray[np.bool_]]]) -> "MaskSource":
        """The same data in other splits: name -> a split of this source, and which of its images."""
        chosen = {name: (split, np.flatnonzero(mask)) for name, (split, mask) in masks.items()}
        return replace(
            self,
            splits={name: tuple(self.splits[split][i] for i in rows) for name, (split, rows) in chosen.items()},
            pixels={name: self.pixels[split][rows] for name, (split, rows) in chosen.items()},
            sizes={name: tuple(self.sizes[split][i] for i in rows) for name, (split, rows) in chosen.items()},
        )


def describe_mask_layout(data: str | os.PathLike[str]) -> str | None:
    """Return the folders of images and masks that show labelled pixels; None if there are none."""
    found = find_mask_folders(Path(data))
    return f"{found[0][0].name} and {found[0][1].name}" if found else None


def open_masks(data: str | os.PathLike[str], *, skip_broken: bool = False, max_pixels: int = MAX_PIXELS) -> MaskSource:
    """Read the table, the lists of splits and all masks of a data set; of the images only the headers are read.

    Args:
        data: A folder with ``images`` and ``masks``, or with folders of splits that have them, and a table of classes
            (``read_table``). Without a table, the values of the masks are the labels. Or a folder with COCO's JSON
            files, or one of them, with polygons or run lengths (``read_coco_masks``); folders of masks come first.
        skip_broken: Skip images and masks that cannot be used, with a sentence in ``broken``, instead of failing.
        max_pixels: Largest number of pixels of a mask.

    Raises:
        DataError: The layout is not recognised, there is no table for the colours, or labels are broken; the message
            names each: an image without mask, a mask without image, of another size than its image, or with a colour or
            value that is not in the table; in COCO's files polygons, run lengths and categories that cannot be used.
    """
    root = Path(data)
    broken = BrokenLabels()
    notes: list[str] = []
    table, splits = _read_layout(root, broken, notes, max_pixels)
    pixels, sizes = {}, {}
    for split, found in list(splits.items()):
        with ThreadPoolExecutor(usable_cores()) as pool:
            read = list(pool.map(lambda pair: _inspect(pair, table, max_pixels), found))
        for pair, outcome in zip(found, read, strict=True):
            if isinstance(outcome, str):
                broken.add(pair.mask, outcome)
        kept = [(pair, outcome) for pair, outcome in zip(found, read, strict=True) if not isinstance(outcome, str)]
        splits[split] = tuple(pair for pair, _ in kept)
        pixels[split] = np.array([counts for _, (counts, _) in kept], np.int64).reshape(-1, len(table.names))
        sizes[split] = tuple(size for _, (_, size) in kept)
    if not skip_broken:
        broken.raise_if_any(root)
    splits = {split: found for split, found in splits.items() if found}
    if not splits:
        broken.raise_if_any(root)
    notes += _class_notes(table, {split: pixels[split] for split in splits})
    return MaskSource(root.resolve().name, table, splits, pixels, sizes, tuple(notes), tuple(broken.sentences))


def _read_layout(
    root: Path, broken: BrokenLabels, notes: list[str], max_pixels: int
) -> tuple[ClassTable, dict[str, tuple[MaskPair, ...]]]:
    """The table of classes, and the pairs by split; the masks of files are not yet read."""
    table = None
    if find_mask_folders(root):
        splits = split_pairs(root, find_pairs(root, broken, notes), broken, notes)
    elif files := find_coco(root) if root.exists() else {}:
        table, splits = read_coco_masks(files, broken, notes, max_pixels=max_pixels)
    else:
        raise DataError(
            f"{printable(str(root))} has no folder images with a folder masks beside it, and no JSON file of COCO; pass"
            " a folder that has them, with a mask (PNG, BMP, TIFF or GIF; JPEG changes its values) of the same name for"
            " each image, or with polygons in COCO's file."
        )
    if not splits:
        broken.raise_if_any(root)
        raise DataError(f"{root} has no image with a mask; pass the folder that contains both.")
    pairs = [pair for found in splits.values() for pair in found]
    return table or _find_table(root, pairs, notes, max_pixels), splits


def _inspect(pair: MaskPair, table: ClassTable, max_pixels: int) -> tuple[npt.NDArray[np.int64], tuple[int, int]] | str:
    """Pixels of each class, and the size of the image; or why the pair cannot be used."""
    unreadable = BrokenLabels()
    size = read_image_size(pair.image, unreadable)
    if size is None:
        return f"its image cannot be read: {unreadable.sentences[0]}"
    try:
        mask = pair.decode_mask(max_pixels=max_pixels)
        if mask.size != size:
            return (
                f"it has {mask.width} x {mask.height} pixels, and its image {pair.image.name} {size[0]} x {size[1]}"
                " (upright)"
            )
        labels = table.apply(mask)
    except (ImageError, DataError) as error:
        return str(error)
    return np.bincount(labels.ravel(), minlength=IGNORED + 1)[: len(table.names)], size


def _find_table(root: Path, pairs: Sequence[MaskPair], notes: list[str], max_pixels: int) -> ClassTable:
    """The table of classes of a data set, or one made of the values of its masks."""
    folders = [
        root,
        *dict.fromkeys(folder.parent for folder, _ in find_mask_folders(root)),
        *{pair.mask.parent: 0 for pair in pairs if isinstance(pair.mask, Path)},
    ]
    tables = find_tables(dict.fromkeys(folders))
    if len(tables) > 1:
        raise DataError(
            f"{printable(str(root))} has {len(tables)} tables of classes"
            f" ({', '.join(printable(str(path.relative_to(root))) for path in tables)}); keep one of them."
        )
    if tables:
        table = read_table(tables[0])
        notes.append(f"{format_count(len(table.names), 'class')} by {tables[0].name}")
        return table
    return _table_of_values(root, pairs, notes, max_pixels)


def _table_of_values(root: Path, pairs: Sequence[MaskPair], notes: list[str], max_pixels: int) -> ClassTable:
    """Make a table of the values of all masks, which are the labels; colours are an error that shows a table."""
    found: set[int] = set()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for values in pool.map(lambda pair: _values(pair, max_pixels), pairs):
            if isinstance(values, str):
                raise DataError(f"{printable(str(root))} has no table of classes, and its masks have colors: {values}.")
            found |= values
    labels = found - {IGNORED}
    if not labels or max(labels) >= MAX_VALUES or labels == {0}:
        raise DataError(
            f"{printable(str(root))} has no table of classes, and the values of its masks are"
            f" {format_names(map(str, sorted(found)))}, of which {IGNORED} is ignored;"
            ' add a file classes.csv: a line "name,value", and for each class a line such as "building,255".'
        )
    if max(labels) > 2 * len(labels):
        raise DataError(
            f"{printable(str(root))} has no table of classes, and of the values 0 to {max(labels)} its masks have only"
            f" {format_names(map(str, sorted(labels)))}; add a file classes.csv: a line"
            ' "name,value", and for each class a line such as "building,255".'
        )
    names = tuple(f"class {value}" for value in range(max(labels) + 1))
    notes.append(
        f"no table of classes (classes.csv, classes.json, classes.txt): the values 0 to {max(labels)} of the masks are"
        f" the classes, and {IGNORED} is ignored"
    )
    return ClassTable(names, {value: value for value in range(len(names))}, is_colored=False)


def _values(pair: MaskPair, max_pixels: int) -> set[int] | str:
    """Values of a mask, or a description of its colours; nothing of an unreadable mask, which is reported later."""
    try:
        mask = pair.decode_mask(max_pixels=max_pixels)
    except ImageError:
        return set()
    if mask.mode not in COLORED_MODES:
        try:
            return set(np.unique(pixel_codes(mask, is_colored=False)).tolist())
        except DataError as error:
            raise DataError(f"{printable(str(pair.mask))}: {error}; write class numbers.") from error
    codes = pixel_codes(mask, is_colored=True)
    red, green, blue = codes >> 16, codes >> 8 & 255, codes & 255
    if (red == green).all() and (green == blue).all():
        return set(np.unique(red).tolist())
    shown = describe_codes(codes.ravel(), codes.size, is_colored=True)
    return (
        f'{shown} in the mask of {pair.image.name}; add a file classes.csv: a line "name,color", and for each class a'
        f' line such as "water,{format_color((226, 169, 41))}"'
    )


def _class_notes(table: ClassTable, pixels: dict[str, npt.NDArray[np.int64]]) -> Iterable[str]:
    notes = []
    if table.ignored:
        notes.append(f"ignored pixels: {', '.join(map(format_color, table.ignored))}")
    for split, counts in pixels.items():
        empty = [name for name, count in zip(table.names, counts.sum(axis=0), strict=True) if not count]
        if empty:
            notes.append(f"no pixel of {format_names(empty)} in {split}")
    return notes
