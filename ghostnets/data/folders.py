"""A folder of images as a data set: ``train/`` with ``val/`` or ``test/``, or one folder per class."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghostnets.data.datasets import DatasetSplits, ImageDataset, load_files, validation_mask
from ghostnets.data.source import check_split
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.preprocessing import IMAGE_SUFFIXES, Preprocessing, is_grey

__all__ = ["ImageFolder", "open_folder"]

SPLIT_FOLDERS = {"val": ("val", "valid", "validation"), "test": ("test",)}
INSPECTED_FILES = 512  # headers read to determine the typical size and the number of channels


@dataclass(frozen=True)
class LabelledFiles:
    """Image files, each with an index into the class names."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder, before any pixel is read; a ``DataSource``.

    Layouts::

        DATA/train/CLASS/*.jpg  with DATA/val/CLASS/*.jpg, DATA/test/CLASS/*.jpg or both
        DATA/CLASS/*.jpg

    A missing ``val`` is split off the training images, by class and by seed: ``val_share`` of each class, at least one
    image. With ``train/`` and ``test/`` alone the best epoch is thus chosen on images split off ``train/``, and
    ``test/`` is left for the final figure. Images may be in subfolders of a class.

    Attributes:
        root: The folder.
        class_names: Names of the class folders, sorted.
        splits: Files of ``"train"``, ``"val"`` and, if the folder has it, ``"test"``.
        val_from_train: Whether ``"val"`` is split off the training images.
        typical_size: Median shorter side in pixels.
        channels: 1 if all images are grayscale, else 3.
        num_ignored: Number of files without the suffix of an image.
        skip_corrupt: Leave unreadable images out instead of failing.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, LabelledFiles]
    val_from_train: bool
    typical_size: int
    channels: int
    num_ignored: int
    skip_corrupt: bool = False

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.splits)

    @property
    def num_images(self) -> int:
        return sum(len(files.paths) for files in self.splits.values())

    def load(self, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None) -> DatasetSplits:
        """Read all splits (see ``DataSource``).

        Raises:
            DataError: Images cannot be read, or a class has no readable training image; all are named.
        """
        loaded: dict[str, ImageDataset] = {}
        problems: list[str] = []
        for split in self.splits:
            loaded[split], unreadable = self._read(split, preprocessing, on_image)
            problems += unreadable
        self.check_readable(problems, self.num_images)
        present = set(loaded["train"].labels.tolist())
        if missing := [name for label, name in enumerate(self.class_names) if label not in present]:
            raise DataError(
                f"no readable training image is left in {', '.join(missing)}; add images or remove the class."
            )
        return DatasetSplits(loaded["train"], loaded["val"], loaded.get("test"), tuple(problems))

    def load_split(
        self, split: str, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None
    ) -> tuple[ImageDataset, tuple[str, ...]]:
        """Read one split (see ``DataSource``)."""
        check_split(self, split)
        images, problems = self._read(split, preprocessing, on_image)
        self.check_readable(problems, len(self.splits[split].paths))
        return images, tuple(problems)

    def _read(
        self, split: str, preprocessing: Preprocessing, on_image: Callable[[], None]
    ) -> tuple[ImageDataset, list[str]]:
        files = self.splits[split]
        labels = torch.tensor(files.labels, dtype=torch.int64)
        return load_files(files.paths, labels, preprocessing, on_image=on_image)

    def check_readable(self, problems: Sequence[str], total: int) -> None:
        """Raise DataError if there are unreadable files and ``skip_corrupt`` is off."""
        if problems and not self.skip_corrupt:
            shown = " ".join(problems[:5])
            more = f" ({len(problems) - 5} more not shown.)" if len(problems) > 5 else ""
            raise DataError(
                f"{len(problems)} of {total} images cannot be read: {shown}{more} To leave them out: --skip-corrupt."
            )


def open_folder(
    root: str | os.PathLike[str], *, val_share: float = 0.2, seed: int = 0, skip_corrupt: bool = False
) -> ImageFolder:
    """Scan a folder of images; no pixel is read.

    Args:
        root: The folder; see ``ImageFolder`` for the layouts.
        val_share: Share of each class split off if there is no ``val/``, between 0 and 1.
        seed: Seed of that split.
        skip_corrupt: Leave unreadable images out when the folder is loaded, instead of failing.

    Raises:
        DataError: The folder is missing, empty, has a class without images, only one class, or splits whose classes
            differ.
        ConfigurationError: ``val_share`` is out of range.
    """
    root = Path(root)
    if not 0 < val_share < 1:
        raise ConfigurationError(f"val_share is {val_share}; it must be between 0 and 1, 0.2 for a fifth.")
    if not root.exists():
        raise DataError(f"there is no folder {root}; give the path of a folder with one subfolder per class.")
    if not root.is_dir():
        raise DataError(f"{root} is a file; give the path of a folder with one subfolder per class.")
    train_root = root / "train" if (root / "train").is_dir() else root
    class_names, train, num_ignored = _scan(train_root)
    splits = {"train": train}
    if train_root != root:
        for split, names in SPLIT_FOLDERS.items():
            if folder := next((root / name for name in names if (root / name).is_dir()), None):
                names_found, files, also_ignored = _scan(folder)
                if names_found != class_names:
                    raise DataError(
                        f"{folder} has the classes {', '.join(names_found)}, but {train_root} has"
                        f" {', '.join(class_names)}; both must have the same class folders."
                    )
                splits[split], num_ignored = files, num_ignored + also_ignored
    val_from_train = "val" not in splits
    if val_from_train:
        splits["train"], splits["val"] = _split_validation(train, class_names, val_share, seed)
    typical_size, channels = _inspect_headers(train.paths)
    ordered: dict[str, LabelledFiles] = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    return ImageFolder(root, class_names, ordered, val_from_train, typical_size, channels, num_ignored, skip_corrupt)


def _scan(folder: Path) -> tuple[tuple[str, ...], LabelledFiles, int]:
    """Class names, their files, and the number of files ignored."""
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        loose = sum(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())
        found = f"{loose} images but no class folders" if loose else "no images"
        raise DataError(f"{folder} contains {found}; it must contain one folder of images per class.")
    paths: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    ignored: Counter[str] = Counter()
    for label, class_folder in enumerate(folders):
        before = len(paths)
        for directory, subfolders, names in os.walk(class_folder, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                suffix = Path(name).suffix.lower()
                if name.startswith(".") or suffix not in IMAGE_SUFFIXES:
                    ignored[suffix or name] += 1
                else:
                    paths.append(Path(directory, name))
                    labels.append(label)
        if len(paths) == before:
            empty.append(class_folder.name)
    if empty:
        others = f" (ignored: {', '.join(f'{n} {s}' for s, n in ignored.items())})" if ignored else ""
        raise DataError(
            f"{folder} has no image in {', '.join(empty)}{others}; add images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            " or remove the folder."
        )
    if len(folders) == 1:
        raise DataError(f"{folder} has a single class ({folders[0].name}); a classifier needs at least two.")
    return tuple(p.name for p in folders), LabelledFiles(tuple(paths), tuple(labels)), ignored.total()


def _split_validation(
    files: LabelledFiles, class_names: Sequence[str], share: float, seed: int
) -> tuple[LabelledFiles, LabelledFiles]:
    """Split files into training and validation, by class, with at least one image of each class on either side."""
    labels = torch.tensor(files.labels)
    for name, count in zip(class_names, labels.bincount().tolist(), strict=True):
        if count < 2:
            raise DataError(
                f"class {name} has a single image, so none can be split off for validation;"
                " add at least one, or make a val/ folder next to train/."
            )
    in_val = validation_mask(labels, share, seed)

    def select(mask: Tensor) -> LabelledFiles:
        indices = mask.nonzero().flatten().tolist()
        return LabelledFiles(tuple(files.paths[i] for i in indices), tuple(files.labels[i] for i in indices))

    return select(~in_val), select(in_val)


def _inspect_headers(paths: Sequence[Path]) -> tuple[int, int]:
    """Median shorter side, and 1 or 3 channels, from the headers of a sample of the files."""
    sizes: list[int] = []
    gray: list[bool] = []
    for path in paths[:: max(1, len(paths) // INSPECTED_FILES)]:
        try:
            is_gray, size = is_grey(path)
        except ImageError:
            continue  # named later, when all files are read
        sizes.append(size)
        gray.append(is_gray)
    if not sizes:
        raise DataError(f"none of the files in {paths[0].parent.parent} can be read as an image; check the folder.")
    return round(statistics.median(sizes)), 1 if all(gray) else 3
