"""The labelled images of WebDataset tars without an index. Importable without torch.

The members of a sample share a key, their name up to the first dot: ``0001.jpg`` with ``0001.cls``, an index or a name
as text, or with ``0001.json``, an object with one of ``LABEL_KEYS``.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ghostnets.data.finder import LeftOut, holds_image, is_image_name, is_system_name
from ghostnets.data.labelled import ImageFile, build_labelled_folder, describe_assumed_splits
from ghostnets.data.labels import LabelledFolder
from ghostnets.data.layout import normalize_name, split_in_name, split_of
from ghostnets.data.stored_images import StoredImage
from ghostnets.data.tar_members import TarMember, open_regular, walk_tar
from ghostnets.errors import DataError
from ghostnets.terminal import printable

__all__ = ["find_tars", "read_labelled_tars"]

NAME_KEYS = ("class_name", "classname", "label_name", "category")
LABEL_KEYS = (*NAME_KEYS, "label", "class", "cls", "target", "class_id", "category_id")
CLASS_FILES = ("classes.txt", "class_names.txt", "labels.txt", "label_names.txt")
MAX_LABEL_BYTES = 1 << 20
SHOWN = 5


class _Sample(NamedTuple):
    split: str
    label: str
    image: StoredImage


def find_tars(root: Path) -> dict[str, list[Path]]:
    """Find the tars of a folder, by split; or a single one.

    Returns:
        Tars of each split; a name without a split, such as ``photos-0001.tar``, holds training images. Empty if there
        are none, or images in the folder.
    """
    if root.is_file():
        return {_split_of(root) or "train": [root]} if root.suffix.lower() == ".tar" else {}
    if holds_image(str(root)):
        return {}
    tars: dict[str, list[Path]] = defaultdict(list)
    for folder in (root, *(path for path in sorted(root.iterdir()) if path.is_dir() and split_of(path.name))):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == ".tar" and path.is_file() and not is_system_name(path.name):
                tars[_split_of(path) or split_of(folder.name) or "train"].append(path)
    return {split: tars[split] for split in ("train", "val", "test") if split in tars}


def read_labelled_tars(
    tars: dict[str, list[Path]], *, network_classes: Collection[str] | None = None, skip_unlabelled: bool = False
) -> LabelledFolder:
    """Read the headers and labels of tars; no image is read.

    Args:
        tars: Tars of ``find_tars``.
        network_classes: Classes of the network that is evaluated; None for training (see ``find_labelled``).
        skip_unlabelled: Leave out images without a label instead of failing.

    Raises:
        DataError: A tar is damaged or has no labels, or they cannot be used; the message gives the reason.
    """
    samples: list[_Sample] = []
    unlabelled: list[str] = []
    left_out = LeftOut()
    for split, paths in tars.items():
        for path in paths:
            found, missing = _read_tar(path, split, left_out)
            samples += found
            unlabelled += missing
            if missing and not found:
                raise DataError(
                    f"{path} has images, but no labels; each needs a member of the same name with .cls or .json"
                    " (an object with the key label), or the tars an index.json of ghostnets shard."
                )
    first = next(iter(tars.values()))[0]
    if not samples:
        raise DataError(f"{first.parent if len(tars) > 1 else first} holds no labelled image.")
    notes = describe_assumed_splits(tars)
    notes += left_out.sentences()
    if unlabelled:
        what = "an image" if len(unlabelled) == 1 else f"{len(unlabelled)} images"
        sentence = f"{what} without a label ({'; '.join(unlabelled[:SHOWN])})"
        if not skip_unlabelled:
            raise DataError(f"{first.parent} has {sentence}; add labels, or skip them: --skip-corrupt.")
        notes.append(f"left out: {sentence}")
    names = _read_names(first.parent, {sample.label for sample in samples}, notes)
    files = [
        ImageFile(split, (names.get(label, label),), str(image), image.name, image.size, stored=image)
        for split, label, image in samples
    ]
    return build_labelled_folder(files, tuple(tars), first.parent, notes, network_classes=network_classes)


def _read_tar(path: Path, split: str, left_out: LeftOut) -> tuple[list[_Sample], list[str]]:
    """The samples of a tar, and the names of images without a label; links and unreadable formats are counted."""

    def count_other(name: str) -> None:
        left_out.add("a link or device in the archive", f"{path.name}:{name}")

    images: dict[str, TarMember] = {}
    labels: dict[str, str] = {}
    try:
        with open_regular(path) as file:
            for member in walk_tar(file, on_other=count_other):
                folder, _, name = member.name.rpartition("/")
                key = f"{folder}/{name.partition('.')[0]}"
                if is_image_name(member.name):
                    if (other := images.setdefault(key, member)) is not member:
                        raise DataError(f"the sample {key.lstrip('/')} has two images, {other.name} and {member.name}")
                elif name.endswith((".cls", ".json")) and not is_system_name(name):
                    label = _read_label(file, member)
                    if label is not None and (name.endswith(".cls") or key not in labels):
                        labels[key] = label
                elif not is_system_name(name):
                    left_out.add_file(f"{path.name}:{member.name}")
    except (OSError, DataError) as error:
        raise DataError(f"the tar {path} cannot be read ({error}).") from error
    samples = [
        _Sample(split, labels[key], StoredImage(str(path), member.name, member.offset, member.size))
        for key, member in images.items()
        if key in labels
    ]
    return samples, [f"{path.name}:{printable(m.name)}" for key, m in images.items() if key not in labels]


def _read_label(file: BinaryIO, member: TarMember) -> str | None:
    """The label in a ``.cls`` or ``.json`` member; None for an object without one."""
    if member.size > MAX_LABEL_BYTES:
        raise DataError(f"the label {member.name} has {member.size} bytes")
    file.seek(member.offset)
    try:
        text = file.read(member.size).decode("utf-8-sig").strip()
        value = json.loads(text) if member.name.endswith(".json") else text
    except (ValueError, RecursionError) as error:
        raise DataError(f"the label {member.name} is not valid {member.name.rpartition('.')[2]} ({error})") from error
    if isinstance(value, dict):
        value = next((value[key] for key in LABEL_KEYS if isinstance(value.get(key), str | int)), None)
    return normalize_name(str(value)) if isinstance(value, str | int) and str(value) else None


def _read_names(folder: Path, labels: Collection[str], notes: list[str]) -> dict[str, str]:
    """Names of classes given as indices, from a list of names next to the tars, one per line."""
    if not all(label.isdecimal() for label in labels):
        return {}
    if (index := folder / "index.json").is_file():  # index of shards, when checking them
        try:
            class_names = json.loads(index.read_text(encoding="utf-8"))["class_names"]
            return {str(number): str(name) for number, name in enumerate(class_names)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{index} has no class names ({error}); write the shards again.") from error
    for path in (folder / name for name in CLASS_FILES):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            names = [normalize_name(line.strip()) for line in lines if line.strip()]
            if max(map(int, labels)) >= len(names) or len(set(names)) < len(names):
                raise DataError(
                    f"{path} has {len(set(names))} names, but the labels go up to {max(map(int, labels))}; write one"
                    " name a line, in the order of the labels."
                )
            notes.append(f"the names of the classes are read from {path}")
            return {str(index): name for index, name in enumerate(names)}
    return {}


def _split_of(path: Path) -> str | None:
    """Split in the name of a tar: ``imagenet-train-000123.tar`` -> ``"train"``."""
    return split_in_name(path.stem)
