"""Boxes in YOLO's text files: one line ``class x_center y_center width height`` per box, relative to the image size.

A ``data.yaml`` names the classes and the images of each split; the labels of ``images/.../a.jpg`` are
``labels/.../a.txt``, or ``a.txt`` next to the image. A line with more numbers is a polygon, read as its bounding box,
or a box with the keypoints that ``kpt_shape`` announces, which are not read.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

from ghostnets.cores import usable_cores
from ghostnets.data.boxes.annotations import BrokenLabels, ImageLabels, LabelRow, read_image_size, read_label_file
from ghostnets.data.boxes.listed import find_by_end
from ghostnets.data.finder import LeftOut, is_image_name, walk_images
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError, require
from ghostnets.terminal import format_count, printable

__all__ = ["find_bare_labels", "find_yaml", "read_yolo"]

Splits = dict[str, list[ImageLabels]]
LABEL_FOLDERS = {"images": "labels", "Images": "Labels", "IMAGES": "LABELS"}  # folder of images -> its labels
SAMPLED = 20  # label files of a folder without data.yaml; some are empty
OTHER_TEXTS = ("classes", "readme", "notes")  # first words of text files beside labels


def find_yaml(root: Path) -> Path | None:
    """Return the YAML file of a YOLO data set: ``root`` itself, or the file in it with ``names``; None without one.

    Raises:
        DataError: Several files have ``names``, and not exactly one of them is called ``data``.
    """
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".yaml", ".yml")]
    found = [path for path in found if path.is_file() and "names" in (_try_yaml(path) or {})]
    if len(found) > 1:
        named = [path for path in found if path.stem == "data"]
        if len(named) != 1:
            raise DataError(f"{root} has {', '.join(path.name for path in found)}; pass one of these files.")
        found = named
    return found[0] if found else None


def find_bare_labels(root: Path) -> Path | None:
    """A file of YOLO's boxes in the folders ``labels`` of a data set or of its splits; None without one.

    Such a data set lacks only the ``data.yaml`` that names its classes and images.
    """
    if not root.is_dir():
        return None
    places = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    folders = [place / name for place in places for name in LABEL_FOLDERS.values()]
    inside = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_dir()]
    for folder in [*folders, *inside]:
        files = sorted(folder.glob("*.txt"))[:SAMPLED] if folder.is_dir() else []
        if (found := next(filter(_holds_boxes, files), None)) is not None:
            return found
    return None


def _holds_boxes(file: Path) -> bool:
    """Whether the first line of a text file is a class number and at least four numbers, as of a box."""
    try:
        with file.open(encoding="utf-8") as lines:
            label, *values = map(float, next(lines, "").split())
    except (OSError, ValueError):
        return False
    return label == int(label) and len(values) >= 4


def read_yolo(file: Path, broken: BrokenLabels, notes: list[str]) -> tuple[tuple[str, ...], Splits]:
    """Read the classes and the labels of all splits of a ``data.yaml``.

    Args:
        file: Path of the ``data.yaml``.
        broken: Collects invalid labels and files.
        notes: Collects assumptions and exclusions.

    Raises:
        DataError: The file or a list of images in it cannot be read.
    """
    description = _try_yaml(file)
    if not isinstance(description, dict):
        raise DataError(f"{file} does not describe a YOLO data set: it has no class names.")
    class_names = _read_class_names(description, file)
    if keypoints := _count_keypoints(description, file):
        notes.append(f"the keypoints of {file.name} (kpt_shape) are not read, only the boxes")
    images: dict[str, list[Path]] = {}
    lists: set[Path] = set()
    for key, value in description.items():
        split = split_of(str(key))
        if split is None or value in (None, "", []):
            continue
        left_out = LeftOut()
        for entry in value if isinstance(value, list) else [value]:
            place = _find_entry(file, description.get("path"), str(entry), notes)
            if place is not None and place.is_dir():
                images.setdefault(split, []).extend(_walk_folder(place, left_out, broken))
            elif place is not None:
                lists.add(place)
                images.setdefault(split, []).extend(_read_list(place, file, description.get("path"), broken, notes))
        notes += left_out.sentences()
    if not any(images.values()):
        missing = f" ({'; '.join(notes[:3])})" if notes else ""
        raise DataError(
            f"{file} names no images{missing}; pass train, val and test as folders of images or lists of paths."
        )
    _report_other_labels([path for found in images.values() for path in found], lists, broken)
    return class_names, {split: _read_labels(found, keypoints, broken, notes) for split, found in images.items()}


def _try_yaml(path: Path) -> Any:
    yaml = require("yaml", extra="train")
    try:
        return yaml.safe_load(read_label_file(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML ({' '.join(str(error).split())[:200]}); correct it.") from error


def _read_class_names(description: dict[Any, Any], file: Path) -> tuple[str, ...]:
    names = description.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file} has no usable names; make them a list, or a mapping from 0, 1, ... to names.")
    for label, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DataError(f"{file}: the name of class {label} is read as {name!r}; write it in quotes.")
    if (count := description.get("nc")) is not None and str(count) != str(len(names)):
        raise DataError(f"{file} has nc: {count} and {len(names)} names; correct one of them.")
    return tuple(" ".join(str(name).split()) for name in names)


def _count_keypoints(description: dict[Any, Any], file: Path) -> int:
    """Return how many numbers of a line are keypoints after the box; 0 without keypoints."""
    shape = description.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or not shape or not all(type(count) is int and count > 0 for count in shape):
        raise DataError(f"{file} has kpt_shape: {shape}; make it the number of keypoints and of values of each.")
    return prod(shape)


def _find_entry(file: Path, base: Any, entry: str, notes: list[str]) -> Path | None:
    """Find the folder or list of an entry of ``data.yaml``; None, with a note, if it does not exist."""
    folder = file.parent
    found = next((path for path in (folder / str(base or "") / entry, folder / entry) if path.exists()), None)
    if found is None:  # written on another machine
        found = find_by_end(entry, folder)
        notes.append(
            f"left out: {entry} of {file.name}, which does not exist"
            if found is None
            else f"{entry} of {file.name} does not exist; {found.relative_to(folder)} next to it is used instead"
        )
    return found


def _walk_folder(folder: Path, left_out: LeftOut, broken: BrokenLabels) -> Iterator[Path]:
    """Yield the images of a folder; files of labels beside them are not counted as left out."""
    has_labels = False
    for image in walk_images(str(folder), left_out):
        if image.error is None:
            path = Path(image.path)
            has_labels |= _label_path(path).parent == path.parent
            yield path
        else:
            broken.add(image.path, image.error)
    if has_labels:
        del left_out.other[".txt"]


def _read_list(file: Path, description: Path, base: Any, broken: BrokenLabels, notes: list[str]) -> Iterator[Path]:
    """Yield the images of a list of paths."""
    folder, foreign = description.parent, []
    for line in filter(None, map(str.strip, read_label_file(file).splitlines())):
        candidates = [file.parent / line, folder / str(base or "") / line, folder / line]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None and (path := find_by_end(line, folder)) is not None:
            foreign.append(line)
        if path is None or not path.is_file():
            broken.add(f"{file}", f"there is no image {line}")
        elif not is_image_name(path.name):
            broken.add(f"{file}", f"{line} is not an image file by its name")
        else:
            yield path
    if foreign:
        notes.append(
            f"{format_count(len(foreign), 'path')} of {file.name} not found as written, such as {foreign[0]}: taken by"
            f" the end of the path, next to {description.name}"
        )


def _report_other_labels(images: list[Path], lists: set[Path], broken: BrokenLabels) -> None:
    """Add label files without an image to ``broken``."""
    folders: dict[Path, set[Path]] = {}  # of labels -> of their images
    for image in images:
        folders.setdefault(_label_path(image).parent, set()).add(image.parent)
    ignored = {path.resolve() for path in lists}
    for folder, image_folders in folders.items():
        files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
        stems = {path.stem for place in image_folders for path in place.iterdir() if is_image_name(path.name)}
        for path in files:
            is_other = path.stem.lower().startswith(OTHER_TEXTS) or path.resolve() in ignored
            if path.stem not in stems and not is_other:
                broken.add(path, "there is no image of this name")


def _read_labels(images: list[Path], keypoints: int, broken: BrokenLabels, notes: list[str]) -> list[ImageLabels]:
    """Read the labels of images."""
    files = [_label_path(image) for image in images]
    with ThreadPoolExecutor(usable_cores()) as pool:
        sizes = list(pool.map(lambda image: read_image_size(image, broken), images))
    found, unlabelled, polygons = [], [], 0
    for image, size, file in zip(images, sizes, files, strict=True):
        if size is None:
            continue
        rows: list[LabelRow] = []
        if file.is_file():
            if (parsed := _parse_rows(file, size, keypoints, broken)) is None:
                continue  # not background: its objects are unknown
            rows, added = parsed
            polygons += added
        else:
            unlabelled.append(file)
        found.append(ImageLabels(image, size, rows))
    if unlabelled:
        notes.append(
            f"{len(unlabelled)} of {format_count(len(images), 'image')} without a label file (there is no"
            f" {printable(str(unlabelled[0]))}): used as background"
        )
    if polygons:
        notes.append(f"{format_count(polygons, 'polygon')}, read as bounding boxes")
    return found


def _label_path(image: Path) -> Path:
    """Return where the labels of an image belong: in ``labels/`` for ``images/``, unless they are next to it."""
    beside = image.with_suffix(".txt")
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] in LABEL_FOLDERS:
            parts[index] = LABEL_FOLDERS[parts[index]]
            apart = Path(*parts).with_suffix(".txt")
            return beside if beside.is_file() and not apart.is_file() else apart
    return beside


def _parse_rows(
    file: Path, size: tuple[int, int], keypoints: int, broken: BrokenLabels
) -> tuple[list[LabelRow], int] | None:
    """Parse a label file; return its boxes and the number of polygons among them, or None if it cannot be read.

    Args:
        file: Path of the file.
        size: Width and height of the image in pixels.
        keypoints: Numbers of a line after those of the box.
        broken: Collects invalid lines.
    """
    try:
        lines = read_label_file(file).splitlines()
    except DataError as error:
        broken.add(file, str(error))
        return None
    (width, height), rows, polygons = size, [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            broken.add(where, f"{line.strip()[:60]!r} is not a class and four numbers")
            continue
        if keypoints and len(values) == 4 + keypoints:
            values = values[:4]
        if len(values) >= 6 and len(values) % 2 == 0 and not keypoints:
            polygons += 1
            x, y = values[::2], values[1::2]
            sides = (min(x), min(y), max(x), max(y))
        elif len(values) == 4:
            x_center, y_center, w, h = values
            sides = (x_center - w / 2, y_center - h / 2, x_center + w / 2, y_center + h / 2)
            if w <= 0 or h <= 0:
                broken.add(where, f"the box has a width of {w:g} and a height of {h:g}")
                continue
        else:
            broken.add(where, f"it has {len(values) + 1} numbers; a box has 5: class, center and size")
            continue
        if label != int(label if abs(label) < 1e9 else 0):
            broken.add(where, f"{label:g} is not a class number")
            continue
        if max(sides) > 2:
            broken.add(
                where,
                f"the box extends to {max(sides):g} times the image size; values are relative to it, from 0 to 1",
            )
            continue
        box = (sides[0] * width, sides[1] * height, sides[2] * width, sides[3] * height)
        rows.append(LabelRow(where, int(label), box))
    return rows, polygons
