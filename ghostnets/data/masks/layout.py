"""The layout of a data set of masks: pairs of an image and a mask, and their splits. Importing this loads no torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from ghostnets.data.boxes.annotations import BrokenLabels, read_label_file
from ghostnets.data.finder import LeftOut, is_image_name, is_system_name, walk_images
from ghostnets.data.layout import split_of
from ghostnets.data.masks.regions import RegionMask
from ghostnets.errors import DataError
from ghostnets.preprocessing import decode_values
from ghostnets.terminal import format_count, format_names, printable

__all__ = ["IMAGE_FOLDERS", "MASK_FOLDERS", "MaskPair", "find_mask_folders", "find_pairs", "split_pairs"]

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages", "photos")
MASK_FOLDERS = (
    "masks",
    "mask",
    "segmentationclass",
    "segmentation",
    "labels",
    "annotations",
    "label_images",
    "gt",
    "ann_dir",
)
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_labelids", "_gt", "_l", "_seg")
LIST_FOLDERS = ("", "splits", "ImageSets/Segmentation", "ImageSets")
MANY_IMAGES = 100
MAX_DEPTH = 3  # folders that may enclose the pairs of images and masks
SHOWN = 5


@dataclass(frozen=True)
class MaskPair:
    """An image and its mask.

    Attributes:
        image: Path of the file.
        mask: Path of the file, or the regions of the mask.
        name: Path of the image below the data set, without suffix and without the folder of images, such as
            ``"train/a"`` or ``"tile_1"``.
    """

    image: Path
    mask: Path | RegionMask
    name: str

    @property
    def split(self) -> str | None:
        """Split that a folder of the path denotes, or None."""
        return next((split for part in PurePosixPath(self.name).parts[:-1] if (split := split_of(part))), None)

    def decode_mask(self, *, max_pixels: int) -> Image.Image:
        """The mask with the values or colours of its pixels; raises ImageError."""
        return (
            self.mask.draw() if isinstance(self.mask, RegionMask) else decode_values(self.mask, max_pixels=max_pixels)
        )

    def read_bytes(self) -> bytes:
        """Content of image and mask; raises OSError."""
        mask = self.mask.to_bytes() if isinstance(self.mask, RegionMask) else self.mask.read_bytes()
        return self.image.read_bytes() + mask

    def __str__(self) -> str:
        return str(self.image)


def find_mask_folders(root: Path) -> list[tuple[Path, Path]]:
    """Folders of images with the folder of their masks beside it, in a data set and up to three folders deep."""
    return list(_walk(root, MAX_DEPTH)) if root.is_dir() else []


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    inside = _subfolders(folder)
    images = next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)
    masks = next((inside[name] for name in MASK_FOLDERS if name in inside and _holds_mask(inside[name])), None)
    if images is not None and masks is not None:
        yield images, masks
    elif depth:
        for path in inside.values():
            if not path.is_symlink():
                yield from _walk(path, depth - 1)


def _subfolders(folder: Path) -> dict[str, Path]:
    """Subfolders by lower-case name; none of a folder that holds many images, such as one of a class."""
    found, images = {}, 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    found[entry.name.lower()] = folder / entry.name
                elif (images := images + is_image_name(entry.name)) > MANY_IMAGES:
                    return {}
    except OSError as error:
        raise DataError(f"{printable(str(folder))} cannot be listed ({error.strerror}).") from error
    return {name: found[name] for name in sorted(found) if not is_system_name(name)}


def _holds_mask(folder: Path) -> bool:
    """Whether a folder, or one in it, has a file that may be a mask."""
    folders = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    return any(file.suffix.lower() in MASK_SUFFIXES for each in folders for file in each.iterdir())


def find_pairs(root: Path, broken: BrokenLabels, notes: list[str]) -> list[MaskPair]:
    """Find the images with their masks; an image without mask or a mask without image is added to ``broken``.

    The mask of ``images/a/b.jpg`` is ``masks/a/b.png``, or ``b_mask.png``, ``b_label.png``, ``b_L.png``, ...
    """
    pairs = []
    for image_folder, mask_folder in find_mask_folders(root):
        left_out = LeftOut()
        masks: dict[str, Path] = {}
        for found in walk_images(str(mask_folder), left_out):
            path = Path(found.path)
            if path.suffix.lower() in MASK_SUFFIXES:
                first = masks.setdefault(path.relative_to(mask_folder).with_suffix("").as_posix(), path)
                if first != path:
                    broken.add(path, f"it is a second mask beside {first.name}")
        used, lowered = set(), {name.lower(): name for name in masks}
        parent = image_folder.relative_to(root).parent
        for found in walk_images(str(image_folder), left_out):
            image = Path(found.path)
            key = image.relative_to(image_folder).with_suffix("").as_posix()
            endings = (f"{key.lower()}{end}" for end in MASK_ENDINGS)
            mask = key if key in masks else next((lowered[name] for name in endings if name in lowered), None)
            if found.error is not None:
                broken.add(image, found.error)
            elif mask is None:
                broken.add(image, f"there is no mask {mask_folder.name}/{key}.png")
            else:
                used.add(mask)
                pairs.append(MaskPair(image, masks[mask], (parent / key).as_posix()))
        for key in sorted(set(masks) - used):
            broken.add(masks[key], f"there is no image of this name in {image_folder.name}")
        notes += left_out.sentences()
    return sorted(pairs, key=lambda pair: pair.name)


def split_pairs(
    root: Path, pairs: list[MaskPair], broken: BrokenLabels, notes: list[str]
) -> dict[str, tuple[MaskPair, ...]]:
    """Divide the pairs by lists of names, or else by folders; without either, all are for training.

    ``train.txt``, ``val.txt`` and ``test.txt``, in the folder, in ``splits`` or in ``ImageSets/Segmentation``, name an
    image in each line: its path, or its name without suffix. Without ``train.txt``, images in no list are for training.

    Raises:
        DataError: A list cannot be read, or two lists name the same image.
    """
    lists = _find_lists(root)
    splits: dict[str, list[MaskPair]] = {"train": [], "val": [], "test": []}
    if not lists:
        for pair in pairs:
            splits[pair.split or "train"].append(pair)
        named = [pair for pair in pairs if pair.split]
        if named and len(named) < len(pairs):
            notes.append(f"{format_count(len(pairs) - len(named), 'image')} in no folder of a split: read as train")
        return {split: tuple(found) for split, found in splits.items() if found}
    by_name: dict[str, list[MaskPair]] = {}
    for pair in pairs:
        below = pair.image.relative_to(root).with_suffix("").as_posix()
        for name in {pair.name, below, pair.image.stem}:
            by_name.setdefault(name, []).append(pair)
    taken: dict[MaskPair, Path] = {}
    for split, path in lists.items():
        for number, line in enumerate(read_label_file(path).splitlines(), start=1):
            if not line.strip():
                continue
            found = _look_up(line.strip(), by_name)
            if len(found) != 1:
                count = f"{len(found)} images are" if found else "there is no image"
                broken.add(f"{path}, line {number}", f"{count} named {line.strip()[:80]}")
            elif (other := taken.get(found[0])) is None:
                taken[found[0]] = path
                splits[split].append(found[0])
            elif other != path:
                raise DataError(f"{found[0].image} is in {other.name} and {path.name}; remove it from one.")
    rest = [pair for pair in pairs if pair not in taken]
    if "train" not in lists:
        splits["train"] = rest
    elif rest:
        shown = format_names((pair.name for pair in rest), SHOWN)
        notes.append(f"left out: {format_count(len(rest), 'image')} in no list ({shown})")
    return {split: tuple(found) for split, found in splits.items() if found}


def _find_lists(root: Path) -> dict[str, Path]:
    for folder in LIST_FOLDERS:
        place = root / folder
        files = sorted(place.glob("*.txt")) if place.is_dir() else []
        lists = {split: path for path in files if (split := split_of(path.stem))}
        if lists:
            return lists
    return {}


def _look_up(line: str, by_name: dict[str, list[MaskPair]]) -> list[MaskPair]:
    """The images that a line names; of an image and a mask, as in some lists, the image comes first."""
    line = line.replace("\\", "/")
    names = [line, *line.split()[:1]]
    for name in names:
        path = PurePosixPath(name)
        for key in (name, path.with_suffix("").as_posix() if path.name else name):
            if key in by_name:
                return by_name[key]
    return []
