"""COCO's JSON files, one for each split (https://cocodataset.org/#format-data): images, categories, and boxes."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ghostnets.data.boxes.annotations import BrokenLabels, ImageLabels, LabelRow, read_image_size, read_label_file
from ghostnets.data.boxes.listed import drop_repeated, find_by_end
from ghostnets.data.layout import split_in_name, split_of
from ghostnets.errors import DataError
from ghostnets.terminal import format_count

__all__ = ["CocoAnnotation", "CocoImage", "find_coco", "read_coco", "read_coco_images"]


class CocoAnnotation(NamedTuple):
    """An entry of ``annotations``; its box and its segmentation are not yet validated."""

    where: str  # file, and id of the annotation, for messages
    label: int | None  # index of its category in the order of their ids; None for an unknown category
    content: dict[str, Any]

    @property
    def is_crowd(self) -> bool:
        return bool(self.content.get("iscrowd") == 1)

    def add_unknown_category(self, broken: BrokenLabels) -> None:
        """Add the annotation to ``broken``, for its category."""
        broken.add(self.where, f"there is no category with the id {self.content.get('category_id')!r}")


class CocoImage(NamedTuple):
    """An image that exists, with its annotations."""

    path: Path
    name: str  # file_name in the JSON file
    size: tuple[int, int]  # width and height of the upright image in pixels
    annotations: list[CocoAnnotation]


def find_coco(root: Path) -> dict[str, Path]:
    """Find the COCO files by split: ``root`` itself, or files in it, in its ``annotations``, or in folders of splits.

    The split is a word in the file's name, else the name of the folder, else train.

    Raises:
        DataError: Several files belong to the same split.
    """
    if root.is_file():
        files = [root] if root.suffix.lower() == ".json" else []
    else:
        folders = [root, root / "annotations", *(path for path in sorted(root.iterdir()) if split_of(path.name))]
        files = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json"))]
    found: dict[str, Path] = {}
    for path in files:
        if not _looks_like_coco(path) or "caption" in path.name or "keypoint" in path.name:
            continue
        split = (None if root.is_file() else split_in_name(path.stem) or split_of(path.parent.name)) or "train"
        if split in found:
            raise DataError(f"{found[split]} and {path} both belong to the split {split}; pass one of them.")
        found[split] = path
    return found


def read_coco(
    files: dict[str, Path], broken: BrokenLabels, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, list[ImageLabels]]]:
    """Read the classes, in the order of their ids, and the boxes of all splits.

    Args:
        files: File of each split.
        broken: Collects invalid labels and files.
        notes: Collects assumptions and exclusions.

    Raises:
        DataError: A file cannot be read, or the classes of two files differ.
    """
    categories, found = read_coco_images(files, broken, notes)
    names = tuple(categories.values())
    splits = {
        split: [ImageLabels(image.path, image.size, list(_read_boxes(image, broken))) for image in images]
        for split, images in found.items()
    }
    used = {row.label for images in splits.values() for image in images for row in image.rows}
    if names and 0 not in used and len(names) > 1:
        notes.append(f"no image has the class {names[0]}, the first of {len(names)}")
    return names, splits


def read_coco_images(
    files: dict[str, Path], broken: BrokenLabels, notes: list[str]
) -> tuple[dict[int, str], dict[str, list[CocoImage]]]:
    """Read the categories, id -> name in the order of their ids, and the images of all splits.

    Args:
        files: File of each split.
        broken: Collects images that are missing, listed again or of another size, and annotations of unknown images.
        notes: Collects assumptions.

    Raises:
        DataError: A file cannot be read, or the categories of two files differ.
    """
    classes: dict[int, str] = {}
    splits = {}
    for split, file in files.items():
        content = _read_json(file)
        categories = _read_categories(content, file)
        if classes and categories != classes:
            raise DataError(
                f"the categories of {file} differ from those of {next(iter(files.values()))}; make them equal."
            )
        classes = categories
        splits[split] = list(drop_repeated(_read_images(content, file, categories, broken), split, broken))
        foreign = [
            image for image in splits[split] if not image.path.as_posix().endswith(PurePosixPath(image.name).as_posix())
        ]
        if foreign:
            notes.append(
                f"{format_count(len(foreign), 'image')} of {file.name} not found as written, such as"
                f" {foreign[0].name}: taken by the end of the path"
            )
    return classes, splits


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1 << 20).removeprefix(codecs.BOM_UTF8).lstrip()
    return start.startswith(b"{") and any(key in start for key in (b'"images"', b'"annotations"'))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_label_file(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({str(error)[:100]}); repair it.") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), list) or not all(isinstance(row, dict) for row in content[key])
        for key in ("images", "annotations", "categories")
    ):
        raise DataError(
            f"{file} is not a COCO file of labelled images: it needs lists of images, annotations and categories."
        )
    return content


def _read_categories(content: dict[str, Any], file: Path) -> dict[int, str]:
    rows = [(row.get("id"), row.get("name")) for row in content["categories"]]
    named = {id_: name for id_, name in rows if type(id_) is int and isinstance(name, str)}
    if not named or len(named) != len(rows):
        raise DataError(f"{file}: each category needs a unique integer id and a name.")
    return {id_: named[id_] for id_ in sorted(named)}


def _read_images(
    content: dict[str, Any], file: Path, categories: dict[int, str], broken: BrokenLabels
) -> Iterator[CocoImage]:
    """Yield the images that exist, with their annotations."""
    labels = {id_: label for label, id_ in enumerate(categories)}
    annotations: dict[Any, list[CocoAnnotation]] = {_as_key(row.get("id")): [] for row in content["images"]}
    if None in annotations or len(annotations) < len(content["images"]):
        raise DataError(f"{file}: each image needs a unique id, an integer or a text.")
    for number, annotation in enumerate(content["annotations"]):
        where = f"{file}, annotation {annotation.get('id', number)}"
        if (image := _as_key(annotation.get("image_id"))) not in annotations:
            broken.add(where, f"there is no image with the id {annotation.get('image_id')!r}")
        else:
            label = labels.get(_as_key(annotation.get("category_id")))
            annotations[image].append(CocoAnnotation(where, label, annotation))
    for row in content["images"]:
        if (found := _find_image(row, file, broken)) is not None:
            path, size = found
            yield CocoImage(path, str(row.get("file_name")), size, annotations[_as_key(row.get("id"))])


def _read_boxes(image: CocoImage, broken: BrokenLabels) -> Iterator[LabelRow]:
    for annotation in image.annotations:
        box: Any = annotation.content.get("bbox")
        area: Any = annotation.content.get("area")
        if annotation.label is None:
            annotation.add_unknown_category(broken)
        elif not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            broken.add(annotation.where, "bbox is not a list of four numbers")
        elif area is not None and not _is_number(area):
            broken.add(annotation.where, f"its area is {str(area)[:20]!r}, not a number")
        else:
            x, y, width, height = map(float, box)
            yield LabelRow(
                annotation.where,
                annotation.label,
                (x, y, x + width, y + height),
                annotation.is_crowd,
                None if area is None else float(area),
            )


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _as_key(value: Any) -> Any:
    """Return an id, which can be any JSON value, as a dictionary key; None if it is not a whole number or a text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None


def _find_image(row: dict[str, Any], file: Path, broken: BrokenLabels) -> tuple[Path, tuple[int, int]] | None:
    """Find the file of an entry of ``images``, and its size; a faulty one is added to ``broken``."""
    name = str(row.get("file_name"))
    folder, stem = file.parent, file.stem.removeprefix("instances_")
    base = folder.parent if folder.name == "annotations" else folder
    folders = [folder, base, base / "images", base / stem, base / "images" / stem]
    path = next((candidate / name for candidate in folders if (candidate / name).is_file()), None)
    if path is None:  # written on another machine
        path = next((found for candidate in folders if (found := find_by_end(name, candidate))), None)
    if path is None or not path.is_file():
        broken.add(file, f"there is no image {name}")
        return None
    if (size := read_image_size(path, broken)) is None:
        return None
    stated = [side if row.get(key) is None else row[key] for key, side in zip(("width", "height"), size, strict=True)]
    if [str(side) for side in stated] != [str(side) for side in size]:
        broken.add(
            path,
            f"the size in {file.name} is {stated[0]} x {stated[1]}, but the upright image has {size[0]} x {size[1]}"
            " pixels",
        )
        return None
    return path, size
