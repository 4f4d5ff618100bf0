"""Image files as a data set: ``train/`` with ``val/`` or ``test/``, one folder per class, or a table of labels."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ghostnets.data.datasets import DatasetSplits, ImageDataset, encode_labels, load_files, validation_mask
from ghostnets.data.labels import LabelledFiles, indices_of
from ghostnets.data.search import find_labelled_images
from ghostnets.data.source import check_split
from ghostnets.data.stored_images import ImagePath, inspect_image
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_names

__all__ = ["ImageFolder", "open_folder"]

INSPECTED_FILES = 512  # headers read to determine the typical size and the number of channels


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder, before any pixel is read; a ``DataSource``.

    Layouts (docs/training.md has all of them)::

        DATA/train/CLASS/*.jpg  with DATA/val/CLASS/*.jpg, DATA/test/CLASS/*.jpg or both
        DATA/CLASS/*.jpg
        DATA/labels.csv, or DATA/train.csv with DATA/val.csv: path and label of each image

    Splits are recognised in any case and by their usual synonyms.

    A missing ``val`` is split off the training images, by class and by seed: ``val_share`` of each class, at least one
    image. With ``train/`` and ``test/`` alone the best epoch is thus chosen on images split off ``train/``, and
    ``test/`` is used for the final accuracy only. Images may be in subfolders of a class.

    Attributes:
        root: The folder, or a table.
        class_names: Names of the class folders or labels (NFC), sorted.
        splits: Files of ``"train"``, ``"val"`` and, if the folder has it, ``"test"``; for evaluation any of them.
        val_from_train: Whether ``"val"`` is split off the training images.
        typical_size: Median shorter side in pixels.
        channels: 1 if all images are grayscale, else 3.
        notes: Assumptions and exclusions, one sentence each.
        identity: Digest of names, sizes, splits and classes of the files, independent of the folder's location.
        skip_corrupt: Leave unreadable images out instead of failing.
        title: Name of the data if it is not that of the folder.
        multi_label: Whether an image has any number of classes.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, LabelledFiles]
    val_from_train: bool
    typical_size: int
    channels: int
    notes: tuple[str, ...]
    identity: str
    skip_corrupt: bool = False
    title: str | None = None
    multi_label: bool = False

    task = "classify"

    @property
    def name(self) -> str:
        if self.title is not None:
            return self.title
        root = self.root.resolve()
        return root.parent.name if root.is_file() else root.name

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.splits)

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of images of each class, by split."""
        counts = {split: _count_classes(files) for split, files in self.splits.items()}
        return {split: tuple(count[i] for i in range(len(self.class_names))) for split, count in counts.items()}

    @property
    def split_sizes(self) -> dict[str, int]:
        return {split: len(files.paths) for split, files in self.splits.items()}

    @property
    def num_images(self) -> int:
        return sum(self.split_sizes.values())

    def load(self, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None) -> DatasetSplits:
        """Read all splits (see ``DataSource``).

        Raises:
            DataError: Images cannot be read, or none is left of a split or of a class in training; all are named.
        """
        loaded: dict[str, ImageDataset] = {}
        problems: list[str] = []
        for split in self.splits:
            loaded[split], unreadable = self._read(split, preprocessing, on_image)
            problems += unreadable
        self.check_readable(problems, self.num_images)
        for split, images in loaded.items():
            self.check_left(split, images.labels)
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
        labels = encode_labels(files.labels, len(self.class_names))
        return load_files(files.paths, labels, preprocessing, on_image=on_image)

    def check_readable(self, problems: Sequence[str], total: int) -> None:
        """Raise DataError if there are unreadable files and ``skip_corrupt`` is off."""
        if problems and not self.skip_corrupt:
            shown = " ".join(problems[:5])
            more = f" ({len(problems) - 5} more not shown.)" if len(problems) > 5 else ""
            raise DataError(
                f"{len(problems)} of {total} images cannot be read: {shown}{more} To omit them: --skip-corrupt."
            )

    def check_left(self, split: str, labels: Tensor) -> None:
        """Raise DataError if no image of a split was readable, or of the training images none of a class.

        Args:
            split: The split.
            labels: Labels of its readable images, as for ``ImageDataset``.
        """
        if not len(labels):
            raise DataError(f"no readable image is left in the split {split} of {self.root}; add images.")
        if split != "train":
            return
        counts = (labels.sum(0) if self.multi_label else labels.bincount(minlength=len(self.class_names))).tolist()
        if missing := [name for name, count in zip(self.class_names, counts, strict=True) if not count]:
            raise DataError(
                f"no readable training image is left in {', '.join(missing)}; add images or remove the class."
            )


def open_folder(
    root: str | os.PathLike[str],
    *,
    val_share: float = 0.2,
    seed: int = 0,
    skip_corrupt: bool = False,
    network_classes: Collection[str] | None = None,
) -> ImageFolder:
    """Scan a folder of images; no pixel is read.

    Args:
        root: The folder or table; see ``ImageFolder`` for the layouts.
        val_share: Share of each class split off if there is no ``val/``, between 0 and 1.
        seed: Seed of that split.
        skip_corrupt: Leave out unreadable folders now, and unreadable images when they are loaded, instead of failing.
        network_classes: Class names of the network that is evaluated, for the rules of evaluation: any number of
            images per class, and any of the classes. None for training.

    Raises:
        DataError: The folder is missing, cannot be listed, has no or two sensible readings, the same file in two splits
            or classes, or names that are not UTF-8; for training also a class without images, only one class, or a
            split with classes that ``train`` does not have.
        ConfigurationError: ``val_share`` is out of range.
    """
    root = Path(root)
    if not 0 < val_share < 1:
        raise ConfigurationError(f"val_share is {val_share}; it must be between 0 and 1, 0.2 for a fifth.")
    found = find_labelled_images(root, network_classes=network_classes, skip_unreadable=skip_corrupt)
    splits, notes = dict(found.splits), list(found.notes)
    val_from_train = "val" not in splits and "train" in splits
    if val_from_train:
        if found.multi_label:
            notes += _describe_single_images(splits["train"], found.class_names)
        elif network_classes is None:
            _check_two_images(splits["train"], found.class_names)
        splits["train"], splits["val"] = _split_validation(
            splits["train"], len(found.class_names), share=val_share, seed=seed
        )
    paths = next(files.paths for files in splits.values() if files.paths)
    typical_size, channels = _inspect_headers(paths, root)
    ordered: dict[str, LabelledFiles] = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    return ImageFolder(
        root,
        found.class_names,
        ordered,
        val_from_train,
        typical_size,
        channels,
        tuple(notes),
        found.identity,
        skip_corrupt,
        multi_label=found.multi_label,
    )


def _count_classes(files: LabelledFiles) -> Counter[int]:
    """Number of images by index of the class."""
    return Counter(index for label in files.labels for index in indices_of(label))


def _check_two_images(files: LabelledFiles, class_names: Sequence[str]) -> None:
    counts = _count_classes(files)
    for label, name in enumerate(class_names):
        if counts[label] < 2:
            raise DataError(
                f"class {name} has a single image, so none can be split off for validation;"
                " add at least one, or make a val/ folder next to train/."
            )


def _describe_single_images(files: LabelledFiles, class_names: Sequence[str]) -> list[str]:
    """Describe classes of multi-label data that cannot be validated."""
    counts = _count_classes(files)
    single = [name for label, name in enumerate(class_names) if counts[label] == 1]
    return (
        [f"a single image has the label {format_names(single)}: it is trained on, and the label is not validated"]
        if single
        else []
    )


def _split_validation(
    files: LabelledFiles, num_classes: int, *, share: float, seed: int
) -> tuple[LabelledFiles, LabelledFiles]:
    """Split files into training and validation, by class; the only image of a class goes to training."""
    in_val = validation_mask(encode_labels(files.labels, num_classes), share, seed)

    def select(mask: Tensor) -> LabelledFiles:
        indices = mask.nonzero().flatten().tolist()
        return LabelledFiles(tuple(files.paths[i] for i in indices), tuple(files.labels[i] for i in indices))

    return select(~in_val), select(in_val)


def _inspect_headers(paths: Sequence[ImagePath], root: Path) -> tuple[int, int]:
    """Median shorter side, and 1 or 3 channels, from the headers of a sample of the files."""
    sizes: list[int] = []
    gray: list[bool] = []
    for path in paths[:: max(1, len(paths) // INSPECTED_FILES)]:
        try:
            is_gray, size = inspect_image(path)
        except ImageError:
            continue  # reported later, when all files are read
        sizes.append(size)
        gray.append(is_gray)
    if not sizes:
        raise DataError(f"none of the files in {root} can be read as an image; check the folder.")
    return round(statistics.median(sizes)), 1 if all(gray) else 3
