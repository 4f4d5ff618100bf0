"""The protocol of data sources: what a labelled data set offers before any pixel is read; its description for users."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ghostnets.errors import ConfigurationError
from ghostnets.terminal import format_count

if TYPE_CHECKING:
    from ghostnets.data.datasets import DatasetSplits, ImageDataset
    from ghostnets.preprocessing import Preprocessing

__all__ = ["DataSource", "check_split", "describe_source", "summarize_source"]

MAX_DESCRIBED = 20  # classes named to the user


class DataSource(Protocol):
    """Labelled images in splits: ``ImageFolder``, ``ShardFolder``, ``FashionMnist``.

    Attributes:
        name: Short name, for the folder of a run.
        class_names: Names in the order of the labels.
        split_names: ``"train"``, ``"val"`` and, where it exists, ``"test"``.
        val_from_train: Whether ``"val"`` is split off the training images.
        multi_label: Whether an image has any number of classes.
        task: ``"classify"``, ``"detect"`` for images with labelled boxes, or ``"segment"`` for images with masks.
        typical_size: Median shorter side in pixels.
        channels: 1 if all images are grayscale, else 3.
        num_images: Number of images in all splits.
        split_sizes: Number of images by split.
        class_counts: Number of images of each class, by split.
        notes: Assumptions and exclusions when the source was opened, one sentence each.
        identity: Digest that recognises the data wherever they are.
    """

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def split_names(self) -> tuple[str, ...]: ...

    @property
    def val_from_train(self) -> bool: ...

    @property
    def multi_label(self) -> bool: ...

    @property
    def task(self) -> str: ...

    @property
    def typical_size(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def num_images(self) -> int: ...

    @property
    def split_sizes(self) -> dict[str, int]: ...

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def identity(self) -> str: ...

    def load(self, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = ...) -> "DatasetSplits":
        """Read all splits.

        Args:
            preprocessing: Number of channels, shorter side and interpolation of the images read.
            on_image: Callback after each image, for a progress bar.

        Raises:
            DataError: Images cannot be read.
        """

    def load_split(
        self, split: str, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = ...
    ) -> "tuple[ImageDataset, tuple[str, ...]]":
        """Read one split.

        Returns:
            The images, and one sentence for each unreadable file that was left out.

        Raises:
            DataError: Images cannot be read.
            ConfigurationError: The source has no such split.
        """


def describe_source(source: DataSource, *, by_split: bool = True) -> list[str]:
    """Describe a data set for the user: its splits, its classes with their numbers of images, and its notes.

    Args:
        source: The data set.
        by_split: Whether to count the images of each split, or all together.
    """
    counts = source.class_counts
    if by_split:
        splits = ", ".join(
            f"{split} {size:,}" + (" (split off train)" if split == "val" and source.val_from_train else "")
            for split, size in source.split_sizes.items()
        )
    else:
        splits = f"{source.num_images:,}"
        counts = {"all": tuple(map(sum, zip(*counts.values(), strict=True)))}
    names = source.class_names
    classes = [
        f"{name} {'/'.join(str(images[label]) for images in counts.values())}"
        for label, name in enumerate(names[:MAX_DESCRIBED])
    ]
    if len(names) > MAX_DESCRIBED:
        total = [sum(images) for images in zip(*counts.values(), strict=True)]
        classes.append(f"and {len(names) - MAX_DESCRIBED} more ({min(total)} to {max(total)} images each)")
    return [f"images: {splits}", f"{format_count(len(names), 'class')}: {', '.join(classes)}", *source.notes]


def summarize_source(source: DataSource) -> dict[str, Any]:
    """Summarize a data set for JSON: ``splits``, split -> class -> number of images, and ``notes``.

    If the labels are boxes, boxes are counted instead of images. For boxes, masks and multi-label data, where an image
    counts in each of its classes, there is also ``images``, split -> number of images. If several classes of shards
    have the same name, their labels are appended to it.
    """
    doubled = {name for name, count in Counter(source.class_names).items() if count > 1}
    names = [f"{name} ({label})" if name in doubled else name for label, name in enumerate(source.class_names)]
    splits = {split: dict(zip(names, images, strict=True)) for split, images in source.class_counts.items()}
    images = {"images": source.split_sizes} if source.multi_label or source.task != "classify" else {}
    return {"splits": splits, **images, "notes": list(source.notes)}


class Splits(Protocol):
    """Named splits of a named data set."""

    @property
    def name(self) -> str: ...

    @property
    def split_names(self) -> tuple[str, ...]: ...


def check_split(source: Splits, split: str) -> None:
    """Raise ConfigurationError if the source has no such split."""
    if split not in source.split_names:
        raise ConfigurationError(f"{source.name} has no split {split!r}; it has {', '.join(source.split_names)}.")
