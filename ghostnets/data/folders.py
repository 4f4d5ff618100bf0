"""A folder of images as a dataset: ``train/`` with ``val/`` or ``test/``, or simply one folder a class."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ghostnets.data.datasets import DatasetSplits, ImageDataset, load_files, validation_mask
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.preprocessing import IMAGE_SUFFIXES, Preprocessing, is_grey

__all__ = ["ImageFolder", "open_folder"]

SPLIT_NAMES = {"val": ("val", "valid", "validation"), "test": ("test",)}
PEEKED_FILES = 512  # headers read to learn the usual size and whether all is grey


@dataclass(frozen=True)
class LabelledFiles:
    """Image files with an index into the class names each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ImageFolder:
    """What stands in a folder, before any pixel is read.

    Layouts::

        DATA/train/CLASS/*.jpg  with DATA/val/CLASS/*.jpg, DATA/test/CLASS/*.jpg or both
        DATA/CLASS/*.jpg

    A part that is missing is split off the training images, by class and by seed: ``val_share`` of each class, at
    least one. So with ``train/`` and ``test/`` alone the best epoch is chosen on images split off ``train/``, and
    ``test/`` remains for the final figure. Images may stand in subfolders of a class.

    Attributes:
        root: The folder.
        class_names: Names of the class folders, sorted.
        parts: ``"train"``, ``"val"`` and, where the folder has it, ``"test"``.
        val_is_split_off: Whether ``"val"`` comes out of the training images.
        typical_size: Median shorter side in pixels.
        channels: 1 where all images are grey, else 3.
        ignored: Number of files that are no images by their names.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: dict[str, LabelledFiles]
    val_is_split_off: bool
    typical_size: int
    channels: int
    ignored: int

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def count(self) -> int:
        """Number of image files in all parts."""
        return sum(len(files.paths) for files in self.parts.values())

    def load(
        self,
        preprocessing: Preprocessing,
        *,
        skip_corrupt: bool = False,
        on_image: Callable[[], None] = lambda: None,
    ) -> DatasetSplits:
        """Reads all parts.

        Args:
            preprocessing: Gives the number of channels and the shorter side to resize to.
            skip_corrupt: Leave unreadable files out instead of giving up.
            on_image: Called after each file.

        Raises:
            DataError: Files cannot be read, or a class has no readable image left; all are named.
        """
        loaded: dict[str, ImageDataset] = {}
        problems: list[str] = []
        for part in self.parts:
            images, unreadable = self.load_split(part, preprocessing, on_image=on_image)
            loaded[part], problems = images, problems + unreadable
        _refuse_unreadable(problems, self.count(), skip_corrupt)
        present = set(loaded["train"].labels.tolist())
        if missing := [name for label, name in enumerate(self.class_names) if label not in present]:
            raise DataError(
                f"no readable training image is left of {', '.join(missing)}; add images or remove the class."
            )
        return DatasetSplits(loaded["train"], loaded["val"], loaded.get("test"), tuple(problems))

    def load_split(
        self, part: str, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None
    ) -> tuple[ImageDataset, list[str]]:
        """Reads one part: the readable images, and one sentence for each unreadable file.

        Raises:
            ConfigurationError: The folder has no such part.
        """
        if part not in self.parts:
            raise ConfigurationError(f"{self.root} has no part {part!r}; it has {', '.join(self.parts)}.")
        files = self.parts[part]
        return load_files(
            files.paths,
            torch.tensor(files.labels, dtype=torch.int64),
            preprocessing,
            on_image=on_image,
        )


def open_folder(root: str | os.PathLike[str], *, val_share: float = 0.2, seed: int = 0) -> ImageFolder:
    """Looks through a folder.

    Args:
        root: The folder; see ``ImageFolder`` for the layouts.
        val_share: Share of each class that is split off where there is no ``val/``, between 0 and 1.
        seed: Of that split.

    Raises:
        DataError: The folder is missing, empty, has a class without images, only one class, or parts whose classes
            differ.
        ConfigurationError: ``val_share`` is out of range.
    """
    root = Path(root)
    if not 0 < val_share < 1:
        raise ConfigurationError(f"val_share is {val_share}; it must be between 0 and 1, 0.2 for a fifth.")
    if not root.exists():
        raise DataError(f"there is no folder {root}; give the path of a folder that holds one folder a class.")
    if not root.is_dir():
        raise DataError(f"{root} is a file; give the path of a folder that holds one folder a class.")
    train_root = root / "train" if (root / "train").is_dir() else root
    class_names, train, ignored = _scan(train_root)
    parts = {"train": train}
    if train_root != root:
        for part, names in SPLIT_NAMES.items():
            if folder := next((root / name for name in names if (root / name).is_dir()), None):
                part_names, files, also_ignored = _scan(folder)
                if part_names != class_names:
                    raise DataError(
                        f"{folder} has the classes {', '.join(part_names)}, but {train_root} has"
                        f" {', '.join(class_names)}; both must have the same folders."
                    )
                parts[part], ignored = files, ignored + also_ignored
    val_is_split_off = "val" not in parts
    if val_is_split_off:
        parts["train"], parts["val"] = _split_off(train, class_names, val_share, seed)
    typical_size, channels = _peek(train.paths)
    order = [part for part in ("train", "val", "test") if part in parts]
    return ImageFolder(
        root, class_names, {part: parts[part] for part in order}, val_is_split_off, typical_size, channels, ignored
    )


def _scan(folder: Path) -> tuple[tuple[str, ...], LabelledFiles, int]:
    """Class names, their files, and the number of files passed over."""
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        loose = sum(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir())
        found = f"{loose} images but no folders" if loose else "nothing to learn from"
        raise DataError(f"{folder} holds {found}; it must hold one folder of images a class.")
    paths: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    passed_over: Counter[str] = Counter()
    for label, class_folder in enumerate(folders):
        found_here = 0
        for directory, subfolders, names in os.walk(class_folder, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                suffix = Path(name).suffix.lower()
                if name.startswith(".") or suffix not in IMAGE_SUFFIXES:
                    passed_over[suffix or name] += 1
                    continue
                paths.append(Path(directory, name))
                labels.append(label)
                found_here += 1
        if not found_here:
            empty.append(class_folder.name)
    if empty:
        others = f" (passed over: {', '.join(f'{n} {s}' for s, n in passed_over.items())})" if passed_over else ""
        raise DataError(
            f"{folder} has no image in {', '.join(empty)}{others}; add images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            " or remove the folder."
        )
    if len(folders) == 1:
        raise DataError(f"{folder} has one class only ({folders[0].name}); telling things apart takes at least two.")
    return tuple(p.name for p in folders), LabelledFiles(tuple(paths), tuple(labels)), passed_over.total()


def _split_off(
    files: LabelledFiles, class_names: Sequence[str], share: float, seed: int
) -> tuple[LabelledFiles, LabelledFiles]:
    """Training and validation files: of each class the nearest number to ``share``, at least one on either side."""
    labels = torch.tensor(files.labels)
    for name, count in zip(class_names, labels.bincount().tolist(), strict=True):
        if count < 2:
            raise DataError(
                f"class {name} has a single image, so none can be kept back for validation;"
                " add at least one, or make a val/ folder beside train/."
            )
    in_val = validation_mask(labels, share, seed)

    def take(mask: Tensor) -> LabelledFiles:
        indices = mask.nonzero().flatten().tolist()
        return LabelledFiles(tuple(files.paths[i] for i in indices), tuple(files.labels[i] for i in indices))

    return take(~in_val), take(in_val)


def _peek(paths: Sequence[Path]) -> tuple[int, int]:
    """Median shorter side, and 1 or 3 channels, from the headers of some files spread over all."""
    sizes: list[int] = []
    grey: list[bool] = []
    for path in paths[:: max(1, len(paths) // PEEKED_FILES)]:
        try:
            is_this_grey, size = is_grey(path)
        except ImageError:
            continue  # named later, when all files are read
        sizes.append(size)
        grey.append(is_this_grey)
    if not sizes:
        raise DataError(f"none of the files in {paths[0].parent.parent} can be read as an image; check the folder.")
    return round(statistics.median(sizes)), 1 if all(grey) else 3


def _refuse_unreadable(problems: Sequence[str], total: int, skip_corrupt: bool) -> None:
    if problems and not skip_corrupt:
        shown = " ".join(problems[:5])
        more = f" ({len(problems) - 5} more not shown.)" if len(problems) > 5 else ""
        raise DataError(
            f"{len(problems)} of {total} images cannot be used: {shown}{more} To go on without them: --skip-corrupt."
        )
