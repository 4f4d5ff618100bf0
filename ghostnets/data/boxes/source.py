"""A data set of images with labelled boxes, recognised by its layout. Importable without torch."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ghostnets.data.boxes.annotations import BoxAnnotations, BrokenLabels, ImageLabels, validate_labels
from ghostnets.data.boxes.coco import find_coco, read_coco
from ghostnets.data.boxes.listed import drop_repeated, shared_image_notes, unused_image_notes
from ghostnets.data.boxes.voc import is_voc, read_voc
from ghostnets.data.boxes.yolo import find_bare_labels, find_yaml, read_yolo
from ghostnets.errors import DataError
from ghostnets.terminal import format_names

__all__ = ["BoxSource", "find_box_layout", "open_boxes"]

MAX_OBJECTS = 100  # that a detector returns for an image, and that average precision counts of a class


@dataclass(frozen=True)
class BoxSource:
    """Images with labelled boxes, by split.

    Attributes:
        name: Name of the folder or file.
        layout: ``"YOLO"``, ``"Pascal VOC"`` or ``"COCO"``.
        class_names: Class names in the order of the labels.
        splits: Images of ``"train"``, ``"val"`` and ``"test"``, where they exist.
        notes: Assumptions and exclusions, one sentence each.
        broken: A sentence for each broken label or image, which is left out.
    """

    name: str
    layout: str
    class_names: tuple[str, ...]
    splits: dict[str, tuple[BoxAnnotations, ...]]
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of boxes of each class, without crowds, by split."""
        return {
            split: tuple(
                np.bincount(
                    np.concatenate([image.labels[~image.is_crowd] for image in images] or [np.zeros(0, np.int64)]),
                    minlength=len(self.class_names),
                ).tolist()
            )
            for split, images in self.splits.items()
        }

    def describe(self) -> list[str]:
        """Describe splits, classes and notes for the user, one sentence each."""
        images = ", ".join(
            f"{split} {len(found):,} ({sum(not len(image.boxes) for image in found):,} without boxes)"
            for split, found in self.splits.items()
        )
        counts = self.class_counts.values()
        classes = [
            f"{name} {'/'.join(str(count[label]) for count in counts)}" for label, name in enumerate(self.class_names)
        ]
        left_out = (f"left out: {sentence}" for sentence in self.broken)
        return [
            f"{self.layout}, images: {images}",
            f"boxes of each class: {', '.join(classes)}",
            *self.notes,
            *left_out,
        ]


def open_boxes(data: str | os.PathLike[str], *, skip_broken: bool = False) -> BoxSource:
    """Read the labels of a data set, and only the headers of its images.

    Args:
        data: A folder with a ``data.yaml`` (YOLO), with ``Annotations`` or XML files (Pascal VOC), or with COCO's JSON
            files; or the YAML or JSON file itself.
        skip_broken: Skip broken labels and images, each with a sentence in ``broken``, instead of failing. Broken are
            boxes that extend more than one pixel beyond their image, have no area, are of an unknown class or occur
            twice, and images that are missing, cannot be read, or differ in size from what their labels say.

    Raises:
        DataError: The layout is not recognised, or labels are broken; the message names the first 20 of them.
    """
    root = Path(data)
    if not root.exists():
        raise DataError(f"there is no {root}; pass a folder of images with labelled boxes.")
    broken = BrokenLabels()
    notes: list[str] = []
    class_names, found, layout = _read_labels(root, broken, notes)
    _check_names(class_names, root)
    order = [split for split in ("train", "val", "test") if found.get(split)]
    if not order:
        broken.raise_if_any(root)
        raise DataError(f"{root} has labels but no images; pass the folder that contains both.")
    splits = {
        split: tuple(
            validate_labels(image, class_names, broken) for image in drop_repeated(found[split], split, broken)
        )
        for split in order
    }
    if not skip_broken:
        broken.raise_if_any(root)
    notes += shared_image_notes(splits)
    notes += unused_image_notes([image for images in splits.values() for image in images], broken)
    source = BoxSource(root.resolve().name, layout, class_names, splits, tuple(notes), tuple(broken.sentences))
    return _add_class_notes(source)


def find_box_layout(data: str | os.PathLike[str]) -> str | None:
    """Return the layout of the labelled boxes in a folder or file, and what it is recognised by; None without boxes.

    Raises:
        DataError: Several files describe the data, or YOLO's files of boxes lack the ``data.yaml``.
    """
    root = Path(data)
    if not root.exists():
        return None
    if (file := find_yaml(root)) is not None:
        return f"YOLO, {file.name}"
    if root.is_dir() and is_voc(root):
        return "Pascal VOC, XML files"
    if files := find_coco(root):
        return f"COCO, {next(iter(files.values())).name}"
    _reject_bare_labels(root)
    return None


def _read_labels(
    root: Path, broken: BrokenLabels, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, list[ImageLabels]], str]:
    """Read class names, labels by split, and the name of the layout."""
    if (file := find_yaml(root)) is not None:
        return *read_yolo(file, broken, notes), "YOLO"
    if is_voc(root):
        return *read_voc(root, broken, notes), "Pascal VOC"
    if files := find_coco(root):
        return *read_coco(files, broken, notes), "COCO"
    _reject_bare_labels(root)
    raise DataError(
        f"{root} has no labelled boxes in a recognised layout; pass a folder with data.yaml (YOLO), with"
        " Annotations/*.xml (Pascal VOC) or with a JSON file of COCO."
    )


def _reject_bare_labels(root: Path) -> None:
    """Raise DataError for files of YOLO's boxes without the file that names their classes and images."""
    if (file := find_bare_labels(root)) is not None:
        raise DataError(
            f"{root} has boxes as YOLO writes them ({file.relative_to(root)}), but no data.yaml with the names of their"
            f" classes; write {root / 'data.yaml'} with the folders of images and the names in the order of the class"
            " numbers, such as the lines 'train: train/images', 'val: val/images' and 'names: [cat, dog]'."
        )


def _check_names(class_names: tuple[str, ...], root: Path) -> None:
    """Raise DataError for a class without a name, or two of the same name, which could not be told apart."""
    for label, name in enumerate(class_names):
        if not name.strip():
            raise DataError(f"{root}: class {label} has no name; name it.")
        if (first := class_names.index(name)) != label:
            raise DataError(f"{root}: the classes {first} and {label} are both named {name!r}; rename one of them.")


def _add_class_notes(source: BoxSource) -> BoxSource:
    """Return the source with a note for each split on the classes without boxes, and one on images with too many."""
    notes = list(source.notes)
    for split, counts in source.class_counts.items():
        empty = [name for name, count in zip(source.class_names, counts, strict=True) if not count]
        if empty:
            notes.append(f"no box of {format_names(empty)} in {split}")
    numbers = [np.count_nonzero(~image.is_crowd) for images in source.splits.values() for image in images]
    most = max(numbers, default=0)
    if most > MAX_OBJECTS:
        notes.append(
            f"an image has up to {most} boxes, and at most {MAX_OBJECTS} objects are found in an image; cut such images"
            " into pieces"
        )
    return replace(source, notes=tuple(notes))
