"""Images with masks as a source of training data. Importing this loads no torch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostnets.data.masks.layout import MaskPair
from ghostnets.data.masks.source import MaskSource
from ghostnets.data.masks.table import ClassTable
from ghostnets.data.source import check_split
from ghostnets.errors import DataError
from ghostnets.preprocessing import limit_elongation

if TYPE_CHECKING:
    from torch import Tensor

    from ghostnets.data.datasets import DatasetSplits, ImageDataset
    from ghostnets.preprocessing import Preprocessing

__all__ = ["MaskFolder", "split_mask_validation"]

SHOWN = 3  # notes in an error


@dataclass(frozen=True)
class MaskFolder:
    """A ``DataSource`` of images with masks.

    An image of its data sets is uint8 (C + 1, H, W): the last channel is the mask, labels with 255 for ignored pixels.
    So image and mask are cached, ordered and read together. The labels of a data set are int64 (N,), all 0.
    ``class_counts`` counts the images that have a class.

    Attributes:
        source: The images and masks, with ``"train"`` and ``"val"``.
        val_from_train: Whether ``"val"`` is split off the training images.
        guessed: A sentence on how the task was found; empty if it was given.
    """

    source: MaskSource
    val_from_train: bool
    guessed: str = ""

    task = "segment"
    multi_label = False
    channels = 3

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.table.names

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.source.splits)

    @property
    def typical_size(self) -> int:
        return int(np.median([min(size) for sizes in self.source.sizes.values() for size in sizes]))

    @property
    def num_images(self) -> int:
        return sum(self.split_sizes.values())

    @property
    def split_sizes(self) -> dict[str, int]:
        return {split: len(pairs) for split, pairs in self.source.splits.items()}

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        return {split: tuple((self.source.pixels[split] > 0).sum(axis=0).tolist()) for split in self.split_names}

    @property
    def notes(self) -> tuple[str, ...]:
        layout = "labels are masks: the numbers of a class are the images in each split that have it"
        shares = self.source.describe_shares("train" if "train" in self.split_names else self.split_names[0])
        return (*([self.guessed] if self.guessed else []), layout, shares, *self.source.notes)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for split, pairs in self.source.splits.items():
            digest.update(split.encode() + self.source.pixels[split].astype("<i8").tobytes())
            for pair in pairs:
                digest.update(pair.name.encode())
        return digest.hexdigest()

    def pairs_of(self, split: str) -> tuple[MaskPair, ...]:
        """Return the images and masks of a split; raises ConfigurationError if there is none."""
        check_split(self, split)
        return self.source.splits[split]

    def load(self, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = lambda: None) -> "DatasetSplits":
        """Read all splits: those of evaluation as the network takes them, training images with their proportions."""
        from ghostnets.data.datasets import load_with_large_training_images

        return load_with_large_training_images(
            self.split_names, preprocessing, lambda split, chosen: self._load(split, chosen, on_image)
        )

    def load_split(
        self, split: str, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = lambda: None
    ) -> "tuple[ImageDataset, tuple[str, ...]]":
        """Read one split as the network takes it."""
        return self._load(split, preprocessing, on_image), ()

    def _load(self, split: str, preprocessing: "Preprocessing", on_image: Callable[[], None]) -> "ImageDataset":
        import torch

        from ghostnets.data.datasets import load_files

        pairs = self.pairs_of(split)
        reader = MaskReader(self.source.table)
        labels = torch.zeros(len(pairs), dtype=torch.int64)
        loaded, problems = load_files(pairs, labels, preprocessing, read=reader, on_image=on_image)
        if problems:
            raise DataError(f"{problems[0]} ({len(problems)} images of {split} cannot be read; repair or remove them.)")
        return loaded


@dataclass(frozen=True)
class MaskReader:
    """Reads an image with its mask as one tensor, uint8 (C + 1, H, W); a mask is resized by its nearest pixels."""

    table: ClassTable

    def __call__(self, pair: MaskPair, preprocessing: "Preprocessing") -> "Tensor":
        import torch

        image = preprocessing.read(pair.image)
        mask = Image.fromarray(self.table.apply(pair.decode_mask(max_pixels=preprocessing.max_pixels)))
        if preprocessing.fit == "crop":
            mask = limit_elongation(mask)  # as the image was
        size = (image.shape[2], image.shape[1])
        resized = mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)
        return torch.cat([image, torch.from_numpy(np.array(resized))[None]])


def split_mask_validation(source: MaskSource, *, val_share: float, seed: int, guessed: str = "") -> MaskFolder:
    """Return the source of training data; without ``"val"``, a share of the training images becomes it.

    Args:
        source: The images and masks as read.
        val_share: Share of the training images split off, each class as evenly as its images allow.
        seed: Seed of that split.
        guessed: A sentence on how the task was found.

    Raises:
        DataError: There is no training image, too few to split, or no labelled pixel to learn from.
    """
    train = source.splits.get("train", ())
    why = f" ({'; '.join(source.notes[:SHOWN])})" if source.notes else ""
    if not train:
        raise DataError(
            f"{source.name} has no training images, but {', '.join(source.splits)}; add a train split{why}."
        )
    if not source.pixels["train"].any():
        raise DataError(f"all pixels of the training masks of {source.name} are ignored; check the table of classes.")
    if source.splits.get("val"):
        return MaskFolder(source, False, guessed)
    if len(train) < 2:
        raise DataError(f"{source.name} has one training image and no val split; add images.")
    import torch

    from ghostnets.data.datasets import validation_mask

    present = torch.from_numpy((source.pixels["train"] > 0).astype(np.float32))
    chosen = validation_mask(present, val_share, seed).numpy()
    if not chosen.any():
        chosen[-1] = True
    parts = {"train": ("train", ~chosen), "val": ("train", chosen)}
    if "test" in source.splits:
        parts["test"] = ("test", np.ones(len(source.splits["test"]), np.bool_))
    return MaskFolder(source.select(parts), True, guessed)
