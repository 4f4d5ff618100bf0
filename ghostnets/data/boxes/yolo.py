"""Boxes in YOLO's text files: one line ``class x_center y_center width height`` per box, relative to the image size.

A ``data.yaml`` names the classes and the images of each split; the labels of ``images/.../a.jpg`` are
``labels/.../a.txt``, or ``a.txt`` next to the image. A line with more numbers is a polygon, read as its bounding box.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ghostnets.cores import usable_cores
from ghostnets.data.boxes.annotations import BrokenLabels, ImageLabels, LabelRow, read_image_size, read_label_file
from ghostnets.data.finder import LeftOut, is_image_name, walk_images
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError, require

__all__ = ["find_yaml", "read_yolo"]

Splits = dict[str, list[ImageLabels]]


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
    splits: Splits = {}
    for key, value in description.items():
        split = split_of(str(key))
        if split is None or value in (None, "", []):
            continue
        left_out = LeftOut()
        images: list[Path] = []
        for entry in value if isinstance(value, list) else [value]:
            images += _find_images(file, description.get("path"), str(entry), left_out, broken, notes)
        notes += left_out.sentences()
        splits[split] = splits.get(split, []) + _read_labels(images, broken, notes)
    if not any(splits.values()):
        raise DataError(f"{file} names no images; pass train, val and test as folders of images or lists of paths.")
    return class_names, splits


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
    if (count := description.get("nc")) not in (None, len(names)):
        raise DataError(f"{file} has nc: {count} and {len(names)} names; correct one of them.")
    return tuple(map(str, names))


def _find_images(
    file: Path, base: Any, entry: str, left_out: LeftOut, broken: BrokenLabels, notes: list[str]
) -> Iterator[Path]:
    """Yield the images of an entry of ``data.yaml``: a folder, or a list of paths."""
    folder = file.parent
    candidates = [folder / str(base or "") / entry, folder / entry]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:  # written on another machine: try the last folders of the path
        parts = Path(entry).parts
        candidates = [folder.joinpath(*parts[-count:]) for count in range(min(len(parts), 3), 0, -1)]
        found = next((path for path in candidates if path.exists() and ".." not in path.parts), None)
        if found is None:
            notes.append(f"left out: {entry} of {file.name}, which does not exist")
            return
        notes.append(f"{entry} of {file.name} does not exist; {found.relative_to(folder)} next to it is used instead")
    if found.is_dir():
        for image in walk_images(str(found), left_out):
            if image.error is None:
                yield Path(image.path)
            else:
                broken.add(image.path, image.error)
        return
    for line in read_label_file(found).splitlines():
        if line := line.strip():
            candidates = [found.parent / line, folder / str(base or "") / line, folder / line]
            path = next((candidate for candidate in candidates if candidate.is_file()), None)
            if path is None:
                broken.add(found, f"there is no image {line}")
            elif is_image_name(path.name):
                yield path


def _read_labels(images: list[Path], broken: BrokenLabels, notes: list[str]) -> list[ImageLabels]:
    """Read the labels of images; label files without an image are added to ``broken``."""
    folders: dict[Path, set[str]] = {}
    files = [_label_path(image) for image in images]
    for file in files:
        folders.setdefault(file.parent, set()).add(file.name)
    with ThreadPoolExecutor(usable_cores()) as pool:
        sizes = list(pool.map(lambda image: read_image_size(image, broken), images))
    found, unlabelled, polygons = [], 0, 0
    for image, size, file in zip(images, sizes, files, strict=True):
        if size is None:
            continue
        rows: list[LabelRow] = []
        if file.is_file():
            rows, added = _parse_rows(file, size, broken)
            polygons += added
        else:
            unlabelled += 1
        found.append(ImageLabels(image, size, rows))
    for folder, names in folders.items():
        for path in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if path.name not in names and path.name not in ("classes.txt", "README.txt"):
                broken.add(path, "there is no image of this name")
    if unlabelled:
        notes.append(f"{unlabelled} of {len(images)} images have no label file and are used as background")
    if polygons:
        notes.append(f"{polygons} polygons are read as their bounding boxes")
    return found


def _label_path(image: Path) -> Path:
    """Return where the labels of an image belong: in ``labels/`` for ``images/``, else next to it."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")


def _parse_rows(file: Path, size: tuple[int, int], broken: BrokenLabels) -> tuple[list[LabelRow], int]:
    """Parse a label file; return its boxes and the number of polygons among them."""
    try:
        lines = read_label_file(file).splitlines()
    except DataError as error:
        broken.add(file, str(error))
        return [], 0
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
        if len(values) >= 6 and len(values) % 2 == 0:
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
