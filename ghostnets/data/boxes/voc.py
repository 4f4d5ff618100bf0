"""Boxes in Pascal VOC's XML files, one for each image (Everingham et al., IJCV 2010).

``Annotations/a.xml`` names its image in ``JPEGImages``, and ``ImageSets`` lists the images of each split; or the files
are next to their images in a folder for each split. Pixels are counted from 1, and a box includes the pixels at both
ends, so a box from 1 to 100 has its sides at 0 and 100.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ghostnets.data.boxes.annotations import BrokenLabels, ImageLabels, LabelRow, read_image_size, read_label_file
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES

__all__ = ["is_voc", "read_voc"]

SIDES = ("xmin", "ymin", "xmax", "ymax")
ENTITIES = re.compile(r"<!(ENTITY|DOCTYPE)")  # entities can grow a small file to gigabytes


def is_voc(root: Path) -> bool:
    """Return whether a folder has XML files: in ``Annotations``, directly in it, or in its folders of splits."""
    return bool(_find_folders(root))


def read_voc(
    root: Path, broken: BrokenLabels, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, list[ImageLabels]]]:
    """Read the classes, in alphabetical order, and the labels of all splits.

    Args:
        root: The folder.
        broken: Collects invalid labels and files.
        notes: Collects assumptions and exclusions.

    Raises:
        DataError: A list of images cannot be read.
    """
    objects = {}
    splits: dict[str, list[Path]] = {}
    for split, folder in _find_folders(root).items():
        files = sorted(folder.glob("*.xml"))
        for file in files:
            if (parsed := _parse(file, broken)) is not None:
                objects[file] = parsed
        splits[split] = files
    if (root / "Annotations").is_dir():
        splits = _read_image_sets(root, splits["train"], broken, notes)
    class_names = sorted({name for rows, _ in objects.values() for name, *_ in rows})
    if not class_names:
        broken.raise_if_any(root)
        raise DataError(f"{root} has no labelled objects in its XML files; pass a Pascal VOC folder with objects.")
    if difficult := sum(is_difficult for rows, _ in objects.values() for *_, is_difficult in rows):
        notes.append(f"{difficult} objects are marked as difficult and used like all others")
    labels = {name: index for index, name in enumerate(class_names)}
    read: dict[str, list[ImageLabels]] = {}
    for split, files in splits.items():
        images = [_find_image(root, file, *objects[file], labels, broken) for file in files if file in objects]
        read[split] = [image for image in images if image is not None]
    return tuple(class_names), read


def _find_folders(root: Path) -> dict[str, Path]:
    """Return the folders with XML files by split."""
    if not root.is_dir():
        return {}
    if any((root / "Annotations").glob("*.xml")):
        return {"train": root / "Annotations"}
    inside = {split_of(path.name): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = {split: path for split, path in inside.items() if split and any(path.glob("*.xml"))}
    return found or ({"train": root} if any(root.glob("*.xml")) else {})


def _read_image_sets(root: Path, files: list[Path], broken: BrokenLabels, notes: list[str]) -> dict[str, list[Path]]:
    """Return the label files by split, as ``ImageSets`` lists them; all are for training if it lists no split."""
    lists = {split_of(path.stem): path for path in sorted((root / "ImageSets").rglob("*.txt"))}
    splits: dict[str, list[Path]] = {}
    for split, path in lists.items():
        if split is None:  # trainval, or images of one class
            continue
        names = [line.split()[0] for line in read_label_file(path).splitlines() if line.strip()]
        paths = [root / "Annotations" / f"{name}.xml" for name in names]
        for name, file in zip(names, paths, strict=True):
            if not file.exists():
                broken.add(path, f"{name} has no label file")
        splits[split] = [file for file in paths if file.exists()]
    if not splits:
        return {"train": files}
    if unlisted := len(set(files) - {file for listed in splits.values() for file in listed}):
        notes.append(f"left out: {unlisted} label files that ImageSets does not list")
    return splits


Object = tuple[str, tuple[float, ...], str, bool]  # class, sides, location for messages, whether marked as difficult


def _parse(file: Path, broken: BrokenLabels) -> tuple[list[Object], dict[str, str]] | None:
    """Return the objects of a file, and the name and size of its image as texts; None if it cannot be read."""
    try:
        text = read_label_file(file)
        if ENTITIES.search(text):
            broken.add(file, "it declares entities, which are not allowed in labels")
            return None
        tree = ElementTree.fromstring(text)
    except (DataError, ElementTree.ParseError, ValueError) as error:
        broken.add(file, f"it is not valid XML ({error})")
        return None
    found: list[Object] = []
    for number, element in enumerate(tree.iter("object"), start=1):
        where = f"{file}, object {number}"
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{side}") for side in SIDES]
        try:
            x_min, y_min, x_max, y_max = (float(text or "") for text in texts)
        except ValueError:
            broken.add(where, f"bndbox has {', '.join(map(str, texts))}; it needs the numbers {', '.join(SIDES)}")
            continue
        if not name:
            broken.add(where, "it has no class name")
            continue
        found.append((name, (x_min - 1, y_min - 1, x_max, y_max), where, element.findtext("difficult") == "1"))
    described = {key: (tree.findtext(key) or "").strip() for key in ("filename", "size/width", "size/height")}
    return found, described


def _find_image(
    root: Path,
    file: Path,
    objects: list[Object],
    described: dict[str, str],
    labels: dict[str, int],
    broken: BrokenLabels,
) -> ImageLabels | None:
    """Find the image of a label file, and check its size; a faulty one is added to ``broken``."""
    folders = [root / "JPEGImages", root / "images", file.parent]
    names = [f"{file.stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES | {s.upper() for s in IMAGE_SUFFIXES})]
    if described["filename"]:
        names.insert(0, Path(described["filename"]).name)
    path = next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)
    if path is None:
        broken.add(file, f"there is no image {names[0]}")
        return None
    if (size := read_image_size(path, broken)) is None:
        return None
    stated = (described["size/width"], described["size/height"])
    if all(stated) and "0" not in stated and stated != tuple(map(str, size)):
        broken.add(file, f"its size is {' x '.join(stated)}, but the upright image has {size[0]} x {size[1]} pixels")
        return None
    rows = [LabelRow(where, labels[name], (box[0], box[1], box[2], box[3])) for name, box, where, _ in objects]
    return ImageLabels(path, size, rows)
