"""Boxes in Pascal VOC's XML files, one for each image (Everingham et al., IJCV 2010).

``Annotations/a.xml`` names its image in ``JPEGImages`` or ``images``, and ``ImageSets/Main`` lists the images of each
split; or the files are next to their images in a folder for each split. Pixels are counted from 1, and a box includes
the pixels at both ends, so a box from 1 to 100 has its sides at 0 and 100.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path, PureWindowsPath

from ghostnets.data.boxes.annotations import BrokenLabels, ImageLabels, LabelRow, read_image_size, read_label_file
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES

__all__ = ["is_voc", "read_voc"]

SIDES = ("xmin", "ymin", "xmax", "ymax")
ENTITIES = re.compile(r"<!(ENTITY|DOCTYPE)")  # entities can grow a small file to gigabytes
LISTED_SUFFIXES = (".xml", *IMAGE_SUFFIXES)  # of names in lists, which have none in Pascal VOC


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
    folders = _find_folders(root)
    for split, folder in folders.items():
        files = sorted(folder.glob("*.xml"))
        for file in files:
            if (parsed := _parse(file, broken)) is not None:
                objects[file] = parsed
        splits[split] = files
    if (annotations := _subfolder(root, "annotations")) is not None and annotations in folders.values():
        splits = _read_image_sets(root, annotations, splits["train"], broken, notes)
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
    if (annotations := _subfolder(root, "annotations")) is not None and any(annotations.glob("*.xml")):
        return {"train": annotations}
    inside = {split_of(path.name): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = {split: path for split, path in inside.items() if split and any(path.glob("*.xml"))}
    return found or ({"train": root} if any(root.glob("*.xml")) else {})


def _subfolder(root: Path, name: str) -> Path | None:
    """Return the folder of a name in lower case, written in any case."""
    return next((path for path in sorted(root.iterdir()) if path.name.lower() == name and path.is_dir()), None)


def _find_lists(root: Path, notes: list[str]) -> dict[str, Path]:
    """Return the list of each split in ``ImageSets``: those of ``Main``, or else of another folder."""
    if (sets := _subfolder(root, "imagesets")) is None:
        return {}
    for folder in (sets / "Main", sets, *sorted(path for path in sets.rglob("*") if path.is_dir())):
        files = sorted(folder.glob("*.txt"))
        lists = {split: path for path in files if (split := split_of(path.stem))}  # the others are of one class
        if "train" not in lists and (both := folder / "trainval.txt") in files:
            lists["train"] = both
            notes.append(f"{both.name} is used as train, as {folder.name} has no train.txt")
        if lists:
            return lists
    return {}


def _read_image_sets(
    root: Path, annotations: Path, files: list[Path], broken: BrokenLabels, notes: list[str]
) -> dict[str, list[Path]]:
    """Return the label files by split, as ``ImageSets`` lists them; all are for training if it lists no split."""
    splits: dict[str, list[Path]] = {}
    for split, path in _find_lists(root, notes).items():
        splits[split] = []
        for line in filter(None, map(str.strip, read_label_file(path).splitlines())):
            listed = PureWindowsPath(line.split()[0])  # which takes both separators
            name = listed.stem if listed.suffix.lower() in LISTED_SUFFIXES else listed.name
            if (file := annotations / f"{name}.xml").exists():
                splits[split].append(file)
            else:
                broken.add(f"{path}", f"{line.split()[0]} has no label file")
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
    except DataError as error:
        broken.add(file, str(error))
        return None
    except (ElementTree.ParseError, ValueError) as error:
        broken.add(file, f"it is not valid XML ({error})")
        return None
    found: list[Object] = []
    for number, element in enumerate(tree.iter("object"), start=1):
        where = f"{file}, object {number}"
        name = " ".join((element.findtext("name") or "").split())
        texts = [element.findtext(f"bndbox/{side}") for side in SIDES]
        try:
            x_min, y_min, x_max, y_max = (float(text or "") for text in texts)
        except ValueError:
            broken.add(where, f"bndbox has {', '.join(map(str, texts))}; it needs the numbers {', '.join(SIDES)}")
            continue
        if not name:
            broken.add(where, "it has no class name")
            continue
        if len(element.findall("bndbox")) > 1:
            broken.add(where, "it has several bndbox; write an object for each")
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
    folders = [*filter(None, (_subfolder(root, name) for name in ("jpegimages", "images"))), file.parent]
    names = [f"{file.stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES | {s.upper() for s in IMAGE_SUFFIXES})]
    if described["filename"]:
        names.insert(0, PureWindowsPath(described["filename"]).name)
    path = next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)
    if path is None:
        broken.add(file, f"there is no image {names[0]}")
        return None
    if (size := read_image_size(path, broken)) is None:
        return None
    stated = (described["size/width"], described["size/height"])
    if all(stated) and "0" not in stated and tuple(text.removesuffix(".0") for text in stated) != (*map(str, size),):
        broken.add(file, f"its size is {' x '.join(stated)}, but the upright image has {size[0]} x {size[1]} pixels")
        return None
    rows = [LabelRow(where, labels[name], (box[0], box[1], box[2], box[3])) for name, box, where, _ in objects]
    return ImageLabels(path, size, rows)
