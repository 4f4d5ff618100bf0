"""Images with masks as a source of training data. Importing this loads no torch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostnets.data.annotated import AnnotatedFolder, describe_elongated
from ghostnets.data.labels import LabelledFiles
from ghostnets.data.masks.layout import MaskPair
from ghostnets.data.masks.source import MaskSource
from ghostnets.data.masks.table import ClassTable
from ghostnets.errors import DataError
from ghostnets.preprocessing import limit_elongation

if TYPE_CHECKING:
    from torch import Tensor

    from ghostnets.data.datasets import ImageDataset
    from ghostnets.preprocessing import Preprocessing

__all__ = ["MaskFolder", "split_mask_validation"]

SHOWN = 3  # notes in an error


@dataclass(frozen=True)
class MaskFolder(AnnotatedFolder[MaskPair]):
    """A ``DataSource`` of images with masks.

    An image of its data sets is uint8 (C + 1, H, W): the last channel is the mask, labels with 255 for ignored pixels.
    So image and mask are cached, ordered and read together. The labels of a data set are int64 (N,), all 0.
    ``class_counts`` counts the images that have a class.

    Attributes:
        source: The images and masks of the splits.
    """

    source: MaskSource

    task = "segment"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.table.names

    @property
    def typical_size(self) -> int:
        return int(np.median([min(size) for sizes in self.source.sizes.values() for size in sizes]))

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        return {split: tuple((self.source.pixels[split] > 0).sum(axis=0).tolist()) for split in self.split_names}

    @property
    def _notes(self) -> tuple[str, ...]:
        layout = "labels are masks: the numbers of a class are the images in each split that have it"
        shares = self.source.describe_shares("train" if "train" in self.split_names else self.split_names[0])
        elongated = describe_elongated(self.source.sizes.get("train", ()))
        return (*([self.guessed] if self.guessed else []), layout, shares, *elongated, *self.source.notes)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for split, pairs in self.source.splits.items():
            digest.update(split.encode() + self.source.pixels[split].astype("<i8").tobytes())
            for pair in pairs:
                digest.update(pair.name.encode())
        return digest.hexdigest()

    def _labelled(self, split: str) -> LabelledFiles:
        labels = (tuple(np.flatnonzero(counts).tolist()) for counts in self.source.pixels[split])
        return LabelledFiles(tuple(pair.image for pair in self.source.splits[split]), tuple(labels))

    def _read(
        self, images: Sequence[MaskPair], preprocessing: "Preprocessing", on_image: Callable[[], None]
    ) -> "tuple[ImageDataset, Sequence[str]]":
        import torch

        from ghostnets.data.datasets import load_files

        labels = torch.zeros(len(images), dtype=torch.int64)
        return load_files(images, labels, preprocessing, read=MaskReader(self.source.table), on_image=on_image)


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
        DataError: There is no training image, too few to split, or no labelled pixel to learn from or to validate on.
    """
    train = source.splits.get("train", ())
    reasons = [*source.broken, *source.notes][:SHOWN]
    why = f" ({'; '.join(reasons)})" if reasons else ""
    if not train:
        raise DataError(
            f"{source.name} has no training images, but {', '.join(source.splits)}; add a train split{why}."
        )
    if not source.pixels["train"].any():
        raise DataError(f"all pixels of the training masks of {source.name} are ignored; check the table of classes.")
    if source.splits.get("val"):
        return _checked(MaskFolder(source, False, guessed))
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
    return _checked(MaskFolder(source.select(parts), True, guessed))


def _checked(folder: MaskFolder) -> MaskFolder:
    is_labelled = bool(folder.source.pixels["val"].any())
    return folder.check_validation(is_labelled=is_labelled, missing="all pixels of the masks are ignored")
