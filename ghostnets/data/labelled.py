"""The image files of a folder with their splits and classes; no file is opened. Importable without torch."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ghostnets.data.finder import LeftOut, is_image_name, relative_name, walk_images
from ghostnets.data.labels import Label, LabelledFiles, LabelledFolder
from ghostnets.data.layout import (
    FolderLayout,
    find_layout,
    is_utf8,
    list_classes,
    loose_notes,
    normalize_name,
    split_in_name,
)
from ghostnets.data.stored_images import StoredImage
from ghostnets.errors import DataError
from ghostnets.preprocessing import IMAGE_SUFFIXES
from ghostnets.terminal import format_count, format_names, printable

__all__ = [
    "ImageFile",
    "build_labelled_folder",
    "check_names",
    "describe_assumed_splits",
    "find_labelled",
    "inspect_file",
    "remove_repeated",
]


NUMBERED_NAME = re.compile(r"(.*\D)[ _.-]+\d+")  # a name such as Maine_Coon_12


class ImageFile(NamedTuple):
    """A labelled file before it is opened; size -1 if it does not exist."""

    split: str
    classes: tuple[str, ...]  # one, unless the data are multi-label
    path: str
    name: str  # within the class folder
    size: int
    device: int = 0
    inode: int = 0
    stored: StoredImage | None = None  # for an image within a larger file

    @property
    def class_name(self) -> str:
        """Name of the class; several names are joined by "; "."""
        return "; ".join(self.classes)


def find_labelled(
    root: Path, *, network_classes: Collection[str] | None = None, skip_unreadable: bool = False
) -> LabelledFolder:
    """Find the labelled images of a folder.

    Args:
        root: The folder; see ``ImageFolder`` for the layouts.
        network_classes: Class names of the network to evaluate, for evaluation: classes may be missing and have any
            number of images. None for training, which needs images of every class.
        skip_unreadable: Leave out subfolders that cannot be listed, instead of failing.

    Raises:
        DataError: The folder cannot be used; the message gives the reason.
    """
    known = None if network_classes is None else {normalize_name(name) for name in network_classes}
    layout = find_layout(root, network_classes=known or ())
    left_out = LeftOut()
    notes = list(layout.notes)
    files: list[ImageFile] = []
    folders: dict[str, tuple[str, ...]] = {}
    unreadable: list[str] = []
    for split, folder in layout.splits.items():
        notes += loose_notes(folder)
        classes = {name: path for name, path in list_classes(folder).items() if name not in layout.left_out}
        folders[split] = tuple(classes)
        for name, path in classes.items():
            for found in walk_images(str(path), left_out):
                if found.error is not None and found.is_folder:
                    unreadable.append(found.error)
                else:
                    files.append(inspect_file(split, (name,), found.path, str(path)))
    check_names(files)
    if unreadable and not skip_unreadable:
        raise DataError(f"{' '.join(unreadable[:5])} Check the permissions, or skip them: --skip-corrupt.")
    notes += [f"left out: {sentence}" for sentence in unreadable]
    files, repeated = remove_repeated(files, is_training=known is None)
    notes += left_out.sentences() + repeated
    if known is None:
        class_names = folders.get("train", ())
        notes += _check_training(root, layout, files, folders, left_out)
    else:
        class_names = tuple(sorted({file.class_name for file in files}))
        if not files:
            raise DataError(_describe_missing(root, left_out))
    notes += _describe_nested(files)
    notes.sort(key=lambda note: note.startswith("left out"))  # how the folder is read comes first
    return _build(files, tuple(layout.splits), class_names, notes)


def _describe_nested(files: Sequence[ImageFile]) -> list[str]:
    """Describe images in subfolders of a class folder, which may be unintended."""
    nested = [f"{file.class_name}/{file.name}" for file in files if "/" in file.name]
    number = f", the first of {len(nested)}" if len(nested) > 1 else ""
    return [f"images in subfolders of a class folder have its class: {nested[0]}{number}"] if nested else []


def _describe_case(class_names: Iterable[str]) -> list[str]:
    """Describe classes whose names differ only in case."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(name.casefold(), name), name) for name in class_names]
    return [f"the classes {one} and {other} differ only in case" for one, other in pairs if one != other]


def build_labelled_folder(
    files: Sequence[ImageFile],
    splits: Sequence[str],
    root: Path,
    notes: Iterable[str],
    *,
    network_classes: Collection[str] | None,
    multi_label: bool = False,
) -> LabelledFolder:
    """Build a ``LabelledFolder`` whose classes are named by their labels alone, as in a table or an archive.

    Args:
        files: The images with their labels.
        splits: Names of the splits.
        root: Path that errors name.
        notes: Assumptions and exclusions, one sentence each.
        network_classes: Classes of the network that is evaluated; None for training, which needs at least two classes
            and knows only those of the training images.
        multi_label: Whether an image can have any number of classes.

    Raises:
        DataError: The classes cannot be used for training; the message gives the reason.
    """
    is_training = network_classes is None
    known = {name for file in files if not is_training or file.split == "train" for name in file.classes}
    class_names = _sort_names(known)
    missing = _check_classes(files, splits, class_names, root) if is_training else []
    return _build(files, splits, class_names, (*notes, *missing), multi_label=multi_label)


def _build(
    files: Sequence[ImageFile],
    splits: Sequence[str],
    class_names: tuple[str, ...],
    notes: Iterable[str],
    *,
    multi_label: bool = False,
) -> LabelledFolder:
    selected = {split: _select_split(files, split, class_names, multi_label=multi_label) for split in splits}
    notes = (*_describe_case(class_names), *notes)
    return LabelledFolder(class_names, selected, notes, _compute_identity(class_names, files), multi_label)


def _compute_identity(class_names: Sequence[str], files: Iterable[ImageFile]) -> str:
    """Compute a digest of the names, sizes, splits and classes of the files."""
    identity = hashlib.sha256("\n".join(class_names).encode())
    for file in files:
        identity.update(f"\n{file.split}\0{file.class_name}\0{normalize_name(file.name)}\0{file.size}".encode())
    return identity.hexdigest()


def inspect_file(split: str, classes: tuple[str, ...], path: str, folder: str) -> ImageFile:
    """Describe the file at a path; its name is the path relative to ``folder``."""
    try:
        status = Path(path).stat()
    except OSError:  # a dangling link, which is reported when the file is read
        return ImageFile(split, classes, path, relative_name(path, folder), -1)
    return ImageFile(split, classes, path, relative_name(path, folder), status.st_size, status.st_dev, status.st_ino)


def _select_split(
    files: Iterable[ImageFile], split: str, class_names: Sequence[str], *, multi_label: bool
) -> LabelledFiles:
    """Select the files of a split, with the indices of their classes."""
    indices = {name: index for index, name in enumerate(class_names)}
    chosen = [file for file in files if file.split == split]
    labels: tuple[Label, ...] = tuple(
        tuple(sorted(indices[name] for name in file.classes)) if multi_label else indices[file.class_name]
        for file in chosen
    )
    return LabelledFiles(tuple(file.stored or Path(file.path) for file in chosen), labels)


def check_names(files: Sequence[ImageFile]) -> None:
    """Raise DataError if a name is not UTF-8."""
    if wrong := [file.path for file in files if not is_utf8(file.path)]:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DataError(f"the name of {printable(wrong[0])}{more} is not UTF-8; rename it (convmv does so in bulk).")


def remove_repeated(files: list[ImageFile], *, is_training: bool) -> tuple[list[ImageFile], list[str]]:
    """Remove links to files that are also listed themselves, and repeated links.

    Raises:
        DataError: In training, a file is in two splits or classes.
    """
    keys = np.array([(file.device, file.inode) for file in files], dtype=np.uint64).reshape(-1, 2)
    _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero((counts[inverse.reshape(-1)] > 1) & (keys[:, 1] > 0))
    first: dict[tuple[int, int], ImageFile] = {}
    repeated: set[int] = set()
    conflicts: list[tuple[ImageFile, ImageFile]] = []
    for index in sorted(suspects.tolist(), key=lambda i: Path(files[i].path).is_symlink()):
        file = files[index]
        original = first.setdefault((file.device, file.inode), file)
        if original is file:
            continue
        if (original.split, original.class_name) == (file.split, file.class_name):
            repeated.add(index)
        else:
            conflicts.append((original, file))
    notes = []
    if repeated:
        number = f", the first of {len(repeated)}" if len(repeated) > 1 else ""
        notes.append(f"left out: {files[min(repeated)].path} (link to a file already read{number})")
    if conflicts:
        one, other = conflicts[0]
        what = "splits" if one.split != other.split else "classes"
        more = f", and {len(conflicts) - 1} more files" if len(conflicts) > 1 else ""
        sentence = f"the same file is in two {what} through a link: {one.path} and {other.path}{more}"
        if is_training:
            raise DataError(f"{sentence}; remove one of them.")
        notes.append(sentence)
    return [file for index, file in enumerate(files) if index not in repeated], notes


def _check_training(
    root: Path, layout: FolderLayout, files: Sequence[ImageFile], folders: dict[str, tuple[str, ...]], left_out: LeftOut
) -> list[str]:
    """Check that every class has training images; return sentences on classes that other splits lack."""
    if "train" not in folders:
        present = ", ".join(f"{split}/" for split in folders)
        raise DataError(f"{root} has {present} but no train/ with class folders, which training needs.")
    train_root, names = layout.splits["train"], folders["train"]
    if not names:
        raise DataError(_describe_missing(train_root, left_out))
    counts = Counter((file.split, file.class_name) for file in files)
    if empty := [name for name in names if not counts["train", name]]:
        notes = left_out.sentences()
        raise DataError(
            f"{train_root} has no image in {format_names(empty)}{' (' + '; '.join(notes) + ')' if notes else ''};"
            f" add images ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder."
        )
    if len(names) == 1:
        more = "".join(f" ({note})" for note in loose_notes(train_root))
        raise DataError(f"{train_root} has a single class ({names[0]}){more}; a classifier needs at least two.")
    sentences = []
    for split in folders:
        used = {name for name in folders[split] if counts[split, name]}
        if unknown := sorted(used - set(names)):
            raise DataError(
                f"{layout.splits[split]} has the classes {format_names(unknown)}, which {train_root} does not have"
                f" (it has {format_names(names)}); move or remove them."
            )
        if missing := [name for name in names if name not in used]:
            sentences.append(f"{split} has no image of {format_names(missing)}")
    return sentences


def _describe_missing(folder: Path, left_out: LeftOut) -> str:
    loose = sorted(path.stem for path in folder.iterdir() if is_image_name(path.name))
    found = f"{format_count(len(loose), 'image')} but no class folders" if loose else "no images"
    more = "".join(f" ({note})" for note in [*left_out.sentences(), *(() if loose else loose_notes(folder))])
    wanted = "one folder of images per class, or a table of paths and labels"
    names = sorted({match[1] for stem in loose if (match := NUMBERED_NAME.fullmatch(stem))})
    if 1 < len(names) <= len(loose) / 2:
        wanted += f". If the file names hold the classes ({', '.join(names[:3])}, ...), docs/training.md shows how"
    return f"{folder} contains {found}{more}; it must contain {wanted}."


def describe_assumed_splits(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Describe files, given by split, read as training images because their names, unlike others, have no split."""
    root = os.path.commonpath([path.parent for paths in files.values() for path in paths])
    names = [relative_name(str(path), root) for path in files.get("train", ())]
    assumed = [name for name in names if split_in_name(name) is None]
    if not assumed or (len(files) == 1 and len(assumed) == len(names)):
        return []
    number = f", the first of {len(assumed)}" if len(assumed) > 1 else ""
    return [f"{printable(assumed[0])} is read as training images: its name has no split{number}"]


def _sort_names(names: Collection[str]) -> tuple[str, ...]:
    """Sort class names; numbers by value."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _check_classes(
    files: Sequence[ImageFile], splits: Sequence[str], class_names: Sequence[str], root: Path
) -> list[str]:
    """Check the classes for training; return sentences on classes that other splits lack."""
    if "train" not in splits:
        raise DataError(f"{root} has no training images.")
    if len(class_names) == 1:
        raise DataError(f"{root} has a single class ({class_names[0]}); a classifier needs at least two.")
    counts = Counter((file.split, name) for file in files for name in file.classes)
    sentences = []
    for split in splits:
        if unknown := sorted({name for file in files if file.split == split for name in file.classes} - {*class_names}):
            raise DataError(
                f"the split {split} of {root} has the labels {format_names(unknown)}, which no training image has;"
                " correct or remove them."
            )
        missing = [name for name in class_names if not counts[split, name]]
        if len(missing) == len(class_names):
            raise DataError(f"no image of the split {split} of {root} has a label; add labels.")
        if missing:
            sentences.append(f"{split} has no image of {format_names(missing)}")
    return sentences
