"""The layout of a folder of labelled images: which subfolders are splits, and which are classes.

Nothing is guessed silently: ``FolderLayout.notes`` lists the decisions, and an ambiguous folder is rejected with an
error that names both layouts. Importable without torch.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ghostnets.data.finder import LeftOut, holds_image, is_image_name, is_system_name, walk_images
from ghostnets.errors import DataError
from ghostnets.terminal import format_count, format_names, printable

__all__ = [
    "FolderLayout",
    "find_layout",
    "is_utf8",
    "list_classes",
    "loose_notes",
    "normalize_name",
    "split_folders",
    "split_in_name",
    "split_of",
]

SYNONYMS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SPLIT_NAME = re.compile(
    f"({'|'.join(name for names in SYNONYMS.values() for name in names)})([ _.-]?(set|data|images|split|list))?"
)


@dataclass(frozen=True)
class FolderLayout:
    """Splits and classes of a folder.

    Attributes:
        splits: Folder of each split, whose subfolders are classes; a folder without splits is ``{"train": FOLDER}``.
        has_splits: Whether the folder has splits.
        notes: Assumptions and exclusions, one sentence each.
        left_out: Names of folders that are not classes.
    """

    splits: dict[str, Path]
    has_splits: bool
    notes: tuple[str, ...]
    left_out: frozenset[str] = frozenset()


def find_layout(root: Path, *, network_classes: Collection[str] = (), max_depth: int = 3) -> FolderLayout:
    """Recognise the layout of a folder.

    Args:
        root: The folder.
        network_classes: Classes of the network that is evaluated: folders of these names are classes, whatever else
            they could be.
        max_depth: Number of folders that may enclose the data, one in another.

    Raises:
        DataError: The layout cannot be recognised, or is ambiguous.
    """
    folders = list_classes(root)
    if folders and set(folders) <= set(network_classes):
        return FolderLayout({"train": root}, has_splits=False, notes=())
    splits = _split_names(folders)
    labelled = {name: split for name, split in splits.items() if _class_folders(folders[name], split)}
    others = [name for name in folders if name not in splits]
    if labelled:
        _check_one_reading(root, folders, labelled, others)
        return _read_splits(root, folders, splits, labelled, network_classes)
    if splits:
        empty = frozenset(name for name in splits if not holds_image(str(folders[name])))
        _check_unlabelled(root, folders, splits, others, empty)
        notes = [f"left out: {name}/ (empty)" for name in splits if name in empty]
        notes += [f"{name}/ is read as a class: it holds no class folders" for name in splits if name not in empty]
        return FolderLayout({"train": root}, has_splits=False, notes=tuple(notes), left_out=empty)
    if max_depth and (inner := _find_enclosed(root, folders)) is not None:
        layout = find_layout(inner, network_classes=network_classes, max_depth=max_depth - 1)
        note = f"the data are read from {printable(str(inner))}, the only folder with images in {printable(str(root))}"
        others = [f"left out: {name}/ (no images)" for name, path in folders.items() if path != inner]
        return FolderLayout(layout.splits, layout.has_splits, (note, *others, *loose_notes(root), *layout.notes))
    _check_classes(root, folders)
    return FolderLayout({"train": root}, has_splits=False, notes=())


def split_folders(root: Path, *, network_classes: Collection[str] = (), max_depth: int = 3) -> dict[str, Path]:
    """Folders that are named like splits, whether or not their images are labelled.

    Args:
        root: The folder that holds them, or encloses the one that does.
        network_classes: Names of folders that are classes.
        max_depth: Number of folders that may enclose them, one in another.

    Raises:
        DataError: A folder cannot be listed, or has a name that is not UTF-8.
    """
    folders = list_classes(root)
    splits = _split_names({name: path for name, path in folders.items() if name not in network_classes})
    if splits or not max_depth or (inner := _find_enclosed(root, folders)) is None:
        return {split: folders[name] for name, split in reversed(splits.items())}
    return split_folders(inner, network_classes=network_classes, max_depth=max_depth - 1)


def list_classes(folder: Path) -> dict[str, Path]:
    """Subfolders by name, normalised (NFC) and sorted.

    Hidden ones, links to the folder's own tree, and folders that this package has written are left out.

    Raises:
        DataError: A name is not UTF-8, two names are equal after normalisation, or the folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for path in _list(folder):
        if is_system_name(path.name) or not path.is_dir() or _encloses(path, folder) or _is_output(path):
            continue
        if not is_utf8(path.name):
            raise DataError(f"the name of the folder {printable(str(path))} is not UTF-8; rename it.")
        name = normalize_name(path.name)
        if name in found:
            raise DataError(
                f"{folder} has two folders named {name}, which differ only in the encoding of accents (NFC and NFD);"
                " merge them."
            )
        found[name] = path
    return dict(sorted(found.items()))


def loose_notes(folder: Path) -> list[str]:
    """Describe what else is directly in a folder of classes: files, and links to an enclosing folder or to no file."""
    paths = _list(folder)
    enclosing = [path for path in paths if _encloses(path, folder)]
    notes = [f"left out: {printable(str(path))} (link to a folder that encloses it)" for path in enclosing]
    notes += [f"left out: {printable(str(path))} (written by ghostnets)" for path in paths if _is_output(path)]
    missing = [path for path in paths if path.is_symlink() and not path.exists()]
    notes += [f"left out: {printable(str(path))} (link to a file or folder that does not exist)" for path in missing]
    if loose := [path for path in paths if _is_loose_image(path)]:
        count = f", the first of {len(loose)} images" if len(loose) > 1 else ""
        notes.append(f"left out: {printable(str(loose[0]))} (in no class folder{count})")
    if others := [path for path in paths if _is_loose_file(path)]:
        names = format_names(printable(path.name) for path in others)
        notes.append(f"left out: {names} in {printable(str(folder))} (the images are labelled by their folders)")
    return notes


def split_of(name: str) -> str | None:
    """Split that a folder's name denotes, or None: ``"Validation"`` -> ``"val"``."""
    match = SPLIT_NAME.fullmatch(normalize_name(name).casefold())
    return next(split for split, names in SYNONYMS.items() if match[1] in names) if match else None


def split_in_name(name: str) -> str | None:
    """Split that a word of a name denotes, or None: ``"imagenet-train-000123"`` -> ``"train"``."""
    words = re.split(r"[^a-z]+", name.casefold())
    return next((split for word in words if (split := split_of(word))), None)


def normalize_name(name: str) -> str:
    """Unicode NFC: names from a Mac are decomposed (NFD)."""
    return unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Whether a file name is valid UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _split_names(folders: Mapping[str, Path]) -> dict[str, str]:
    """Folders named like a split, also with a common prefix as in ``seg_train`` and ``seg_test``."""
    splits = {name: split for name in folders if (split := split_of(name))}
    prefix = os.path.commonprefix(list(folders))  # noqa: RUF071 - of names, not of paths
    prefix = prefix[: max(prefix.rfind(separator) for separator in "_-. ") + 1]
    if not splits and prefix:
        stripped = {name: split for name in folders if (split := split_of(name.removeprefix(prefix)))}
        if "train" in stripped.values() and len(stripped) > 1:
            return stripped
    return splits


def _subfolders_with_images(folder: Path) -> dict[str, Path]:
    return {name: path for name, path in list_classes(folder).items() if holds_image(str(path))}


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{printable(str(folder))} cannot be listed ({error.strerror}); check its permissions."
        ) from error


def _encloses(path: Path, folder: Path) -> bool:
    """Whether ``path`` is a link to ``folder`` or to a folder around it."""
    target = os.path.realpath(path)
    return path.is_symlink() and path.is_dir() and os.path.commonpath([target, os.path.realpath(folder)]) == target


def _is_output(path: Path) -> bool:
    """Whether a folder was written by training (``runs``) or ``ghostnets explain`` in the folder of the images."""
    if path.name == "runs":
        return path.is_dir() and any((run / "config.json").is_file() for run in _list(path))
    return path.name.startswith("explain") and (path / "explain.html").is_file()


def _is_loose_image(path: Path) -> bool:
    return is_image_name(path.name) and path.is_file()


def _is_loose_file(path: Path) -> bool:
    """Whether a path is a file that could hold labels or splits."""
    skipped = is_system_name(path.name) or path.stem.casefold().startswith(("readme", "license", "licence"))
    return path.is_file() and not skipped and not is_image_name(path.name)


def _holds_loose_images(folder: Path) -> bool:
    return any(map(_is_loose_image, _list(folder)))


def _class_folders(folder: Path, split: str) -> dict[str, Path]:
    """Subfolders with images of a split, also one level deeper as in ``train/train/CLASS``."""
    return _subfolders_with_images(_unwrap(folder, split))


def _unwrap(folder: Path, split: str) -> Path:
    inner = list(_subfolders_with_images(folder).items())
    if len(inner) == 1 and not _holds_loose_images(folder):
        name, path = inner[0]
        if (split_of(name) == split or name == normalize_name(folder.name)) and _subfolders_with_images(path):
            return path
    return folder


def _find_enclosed(root: Path, folders: Mapping[str, Path]) -> Path | None:
    """Return the only subfolder of a folder without images of its own, if it holds splits or at least two classes."""
    if _holds_loose_images(root):
        return None
    inner = [path for path in folders.values() if holds_image(str(path))]
    if len(inner) != 1 or _holds_loose_images(inner[0]):
        return None
    names = _subfolders_with_images(inner[0])
    return inner[0] if len(names) > 1 or _split_names(names) or (names and _find_enclosed(inner[0], names)) else None


def _read_splits(
    root: Path,
    folders: Mapping[str, Path],
    splits: Mapping[str, str],
    labelled: Mapping[str, str],
    network_classes: Collection[str],
) -> FolderLayout:
    by_split: dict[str, list[str]] = defaultdict(list)
    for name, split in labelled.items():
        by_split[split].append(name)
    for split, names in by_split.items():
        if len(names) > 1:
            raise DataError(
                f"{root} has {len(names)} folders of {split} images ({format_names(names)}); remove or rename all but"
                " one."
            )
    found = {split: _unwrap(folders[names[0]], split) for split, names in by_split.items()}
    notes = []
    for split in _unlabelled_splits(found, network_classes) if "train" in found else ():
        labelled = {name: other for name, other in labelled.items() if other != split}
        del found[split]
    for name, split in splits.items():
        path = folders[name]
        if split in found and name in labelled:
            if name != split or path != found[split]:
                notes.append(f"{printable(str(found[split].relative_to(root)))}/ is read as the {split} split")
        else:
            count = sum(1 for _ in walk_images(str(path), LeftOut()))
            images = format_count(count, "image")
            notes.append(f"left out: {name}/ ({images} without class folders)" if count else f"{name}/ is empty")
    notes += [f"left out: {name}/ (neither train, val nor test)" for name in folders if name not in splits]
    if root not in found.values():
        notes += loose_notes(root)
    return FolderLayout(
        {split: found[split] for split in SYNONYMS if split in found}, has_splits=True, notes=tuple(notes)
    )


def _unlabelled_splits(found: Mapping[str, Path], network_classes: Collection[str]) -> list[str]:
    """Splits whose images are all in one folder that is not a class of the training images: ``test/images/*.jpg``."""
    classes = {*list_classes(found["train"]), *network_classes}
    names = {split: list(_subfolders_with_images(path)) for split, path in found.items() if split != "train"}
    return [split for split, inner in names.items() if len(classes) > 1 and len(inner) == 1 and inner[0] not in classes]


def _check_one_reading(root: Path, folders: Mapping[str, Path], labelled: Mapping[str, str], others: list[str]) -> None:
    """Reject a single split next to folders that could be classes."""
    classes = [name for name in others if holds_image(str(folders[name]))]
    if len(set(labelled.values())) == 1 and classes:
        name = next(iter(labelled))
        inner = format_names(_subfolders_with_images(folders[name]))
        raise DataError(
            f"{root} can be read in two ways: as the classes {format_names(sorted([*classes, *labelled]))}, or as the"
            f" split {name}/ with the classes {inner}; rename {name}/ if it is a class, else move"
            f" {format_names(classes)} elsewhere or pass {root}/{name}."
        )


def _check_unlabelled(
    root: Path, folders: Mapping[str, Path], splits: Mapping[str, str], others: list[str], empty: Collection[str]
) -> None:
    """Reject splits without class folders, unless a single one among ordinary folders can only be a class."""
    classes = [name for name in others if holds_image(str(folders[name]))]
    if len({split for name, split in splits.items() if name not in empty}) > 1 or not classes:
        raise DataError(
            f"{root} has {format_names(f'{name}/' for name in splits)}, but no class folders in them; each must contain"
            " one folder of images per class, or a single table (.csv, .tsv) of paths and labels."
        )


def _check_classes(root: Path, folders: Mapping[str, Path]) -> None:
    """Reject "classes" that all hold the same subfolders, such as ``Fold1`` and ``Fold2``."""
    inner = []
    for path in folders.values():
        if _holds_loose_images(path):
            return
        inner.append(set(list_classes(path)))
    if len(inner) < 2:
        return
    if all(names and all(map(split_of, names)) for names in inner):
        raise DataError(
            f"{root} can be read in two ways: as the classes {format_names(folders)}, or as several data sets with"
            f" splits ({format_names(sorted(set.union(*inner)))}); pass one of them, such as"
            f" {next(iter(folders.values()))}."
        )
    common = set.intersection(*inner)
    if len(common) > 1 and 2 * len(common) >= max(map(len, inner)):
        raise DataError(
            f"{root} can be read in two ways: as the classes {format_names(folders)}, or as splits with the classes"
            f" {format_names(sorted(common))}; name the splits train, val and test, or move the images of each class"
            " directly into its folder."
        )
