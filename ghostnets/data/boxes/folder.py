"""Images with labelled boxes as a source of training data. Importable without torch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ghostnets.data.annotated import AnnotatedFolder, describe_elongated
from ghostnets.data.boxes.annotations import BoxAnnotations
from ghostnets.data.boxes.source import BoxSource
from ghostnets.data.labels import LabelledFiles, LabelledFolder
from ghostnets.errors import DataError
from ghostnets.preprocessing import middle_of

if TYPE_CHECKING:
    from torch import Tensor

    from ghostnets.data.datasets import ImageDataset
    from ghostnets.preprocessing import Preprocessing

__all__ = ["BoxFolder", "pack_boxes", "split_validation"]

PADDING = -1  # class of padding rows
SHOWN = 3  # notes in an error
COLUMNS = 6  # x_min, y_min, x_max, y_max relative to the image's sides, class, whether it is a crowd


@dataclass(frozen=True)
class BoxFolder(AnnotatedFolder[BoxAnnotations]):
    """``DataSource`` of images with labelled boxes.

    The labels are packed boxes, float32 (N, G, 6): for each box x_min, y_min, x_max and y_max relative to the width and
    height of the image, in [0, 1], then the class, then 1 for a crowd. G is the largest number of boxes of an image;
    rows of class -1 are padding. ``class_counts`` counts boxes.

    Attributes:
        source: Labelled images of the splits.
    """

    source: BoxSource

    task = "detect"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def typical_size(self) -> int:
        sizes = [min(image.size) for images in self.source.splits.values() for image in images]
        return int(np.median(sizes))

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        return self.source.class_counts

    @property
    def _notes(self) -> tuple[str, ...]:
        background = [
            f"{count} of {len(images)} images in {split} have no boxes and are used as background"
            for split, images in self.source.splits.items()
            if (count := sum(not len(image.boxes) for image in images))
        ]
        layout = f"labels are boxes ({self.source.layout}): the numbers of each class are boxes in each split"
        elongated = describe_elongated(image.size for image in self.source.splits.get("train", ()))
        return (*([self.guessed] if self.guessed else []), layout, *background, *elongated, *self.source.notes)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for split, images in self.source.splits.items():
            digest.update(split.encode())
            for image in images:
                digest.update(image.path.name.encode())
                digest.update(pack_boxes([image]).astype("<f4").tobytes())
        return digest.hexdigest()

    def find_files(self) -> LabelledFolder:
        return replace(super().find_files(), box_counts=self.class_counts)

    def _labelled(self, split: str) -> LabelledFiles:
        images = self.source.splits[split]
        labels = (tuple(np.unique(image.labels).tolist()) for image in images)
        return LabelledFiles(tuple(image.path for image in images), tuple(labels))

    def _read(
        self, images: Sequence[BoxAnnotations], preprocessing: "Preprocessing", on_image: Callable[[], None]
    ) -> "tuple[ImageDataset, Sequence[str]]":
        import torch

        from ghostnets.data.datasets import load_files

        shown = [_crop_to_middle(image) for image in images] if preprocessing.fit == "crop" else images
        labels: Tensor = torch.from_numpy(pack_boxes(shown))
        return load_files([image.path for image in images], labels, preprocessing, on_image=on_image)


def _crop_to_middle(image: BoxAnnotations) -> BoxAnnotations:
    """The boxes in the part of an image that is read for training (``middle_of``), by their centers."""
    left, top, right, bottom = middle_of(image.size)
    size = (right - left, bottom - top)
    if size == image.size:
        return image
    boxes = image.boxes - (left, top, left, top)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((centers > 0) & (centers < size)).all(1)
    cropped = boxes[kept].clip(0, (*size, *size))
    return BoxAnnotations(image.path, size, cropped, image.labels[kept], image.is_crowd[kept], image.areas[kept])


def pack_boxes(images: Sequence[BoxAnnotations]) -> npt.NDArray[np.float32]:
    """Return the boxes of all images as one array, float32 (N, G, 6), as ``BoxFolder`` describes; G is at least 1."""
    most = max((len(image.boxes) for image in images), default=0)
    packed = np.zeros((len(images), max(1, most), COLUMNS), np.float32)
    packed[..., 4] = PADDING
    for row, image in zip(packed, images, strict=True):
        count = len(image.boxes)
        row[:count, :4] = image.boxes / np.array([*image.size, *image.size])
        row[:count, 4], row[:count, 5] = image.labels, image.is_crowd
    return packed


def split_validation(source: BoxSource, *, val_share: float, seed: int, guessed: str = "") -> BoxFolder:
    """Return the data source of labelled images; if they have no ``"val"``, split it off from ``"train"``.

    Args:
        source: Labelled images as read.
        val_share: Share of the training images to split off, stratified by class as far as the images allow.
        seed: Seed of the split.
        guessed: Value of ``BoxFolder.guessed``.

    Raises:
        DataError: There are no training images, too few to split, or no boxes in them or in those of validation.
    """
    train = source.splits.get("train", ())
    reasons = [*source.broken, *source.notes][:SHOWN]
    why = f" ({'; '.join(reasons)})" if reasons else ""
    if not train:
        raise DataError(
            f"{source.name} has no training images, only {', '.join(source.splits)}; add a train split{why}."
        )
    if not sum(len(image.boxes) for image in train):
        raise DataError(f"none of the {len(train)} training images of {source.name} has boxes; add labels{why}.")
    if source.splits.get("val"):
        return _checked(BoxFolder(source, False, guessed))
    if len(train) < 2:
        raise DataError(f"{source.name} has only one training image and no val split; add images.")
    import torch

    from ghostnets.data.datasets import validation_mask

    present = torch.zeros(len(train), len(source.class_names))
    for row, image in enumerate(train):
        present[row, image.labels.tolist()] = 1
    chosen = validation_mask(present, val_share, seed).tolist()
    if not any(chosen):
        chosen[-1] = True
    splits = {
        "train": tuple(image for image, is_val in zip(train, chosen, strict=True) if not is_val),
        "val": tuple(image for image, is_val in zip(train, chosen, strict=True) if is_val),
        **({"test": source.splits["test"]} if "test" in source.splits else {}),
    }
    return _checked(BoxFolder(replace(source, splits=splits), True, guessed))


def _checked(folder: BoxFolder) -> BoxFolder:
    is_labelled = any((~image.is_crowd).any() for image in folder.source.splits["val"])
    return folder.check_validation(is_labelled=is_labelled, missing="none has a box around a single object")
