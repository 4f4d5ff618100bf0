"""Segmentation in any runtime: a path, bytes, an array or a PIL image -> a class for each pixel."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from ghostnets.artefacts.batches import compute_in_batches, path_of
from ghostnets.artefacts.classifier import ImageList
from ghostnets.artefacts.masks import classify_pixels
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.runtimes import open_model
from ghostnets.artefacts.scores import Array
from ghostnets.preprocessing import MAX_PIXELS, FittedImage, ImageSource, Pixels

__all__ = ["SegmentedImage", "Segmenter", "load_segmenter"]

IMAGES_AT_ONCE = 4  # logits of all classes at all pixels are large


@dataclass(frozen=True)
class SegmentedImage:
    """The classes of the pixels of one image.

    Attributes:
        path: Path of the image, or "" for an image in memory.
        size: Width and height of the upright image in pixels; (0, 0) if it cannot be read.
        mask: Class index of each pixel of the upright image, uint8 (H, W).
        scores: Probability of that class, float32 (H, W).
        class_names: Class names in the order of the indices.
        error: Reason why the image cannot be read; None for a readable image.
    """

    path: str
    size: tuple[int, int] = (0, 0)
    mask: Pixels = field(default_factory=lambda: np.zeros((0, 0), np.uint8), compare=False)
    scores: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32), compare=False)
    class_names: tuple[str, ...] = ()
    error: str | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that occurs, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind="stable").tolist()
        return {self.class_names[label]: int(counts[label]) / self.mask.size for label in order if counts[label]}


class Segmenter:
    """Gives each pixel of an image a class.

    Example::

        segmenter = load_segmenter("aerial.safetensors")
        segmented = segmenter("photo.jpg")
        print(segmented.shares, segmented.mask.shape)

    Args:
        model: An opened model, or the path of a file for ``open_model``.
        flip: Average the probabilities of each image and its horizontal flip (test-time augmentation); takes twice the
            time.
        max_pixels: Maximum number of pixels of an image that is read.

    Attributes:
        model: The opened model.
        preprocessing: Preprocessing of the model, with the limit ``max_pixels``.

    Raises:
        ConfigurationError: The network is not for segmentation.
    """

    def __init__(
        self, model: Model | str | os.PathLike[str], *, flip: bool = False, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.model = model if isinstance(model, Model) else open_model(model)
        self.flip = flip
        self.model.require_task("segment")
        self.preprocessing = replace(self.model.description.preprocessing, max_pixels=max_pixels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.model.description.class_names

    def copy(self) -> "Segmenter":
        """Return a segmenter for concurrent use (see ``Model.copy``)."""
        return Segmenter(self.model.copy(), flip=self.flip, max_pixels=self.preprocessing.max_pixels)

    @overload
    def __call__(self, images: ImageList) -> list[SegmentedImage]: ...
    @overload
    def __call__(self, images: ImageSource) -> SegmentedImage: ...
    def __call__(self, images: ImageSource | ImageList) -> SegmentedImage | list[SegmentedImage]:
        """Segment an image, or each image of a list, which may be anything that ``Classifier`` accepts.

        Raises:
            ImageError: An image cannot be read.
            ConfigurationError: An image is of an unsupported type.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        if not isinstance(images, list | tuple):
            return self.segment([self.read(images)], [path_of(images)])[0]
        return compute_in_batches(
            images, lambda image, name: self.read(image, name=name), self.segment, batch_size=IMAGES_AT_ONCE
        )

    def read(self, image: ImageSource, *, name: str | None = None) -> FittedImage:
        """Read an image and preprocess it for the network (see ``Preprocessing.fitted``)."""
        return self.preprocessing.fitted(image, name=name)

    def segment(self, images: Sequence[FittedImage], names: Sequence[str]) -> list[SegmentedImage]:
        """Segment a batch of images that ``read`` returned.

        Args:
            images: Preprocessed images.
            names: Value of ``SegmentedImage.path`` for each image.
        """
        if not images:
            return []
        pixels = np.stack([image.pixels for image in images])  # (N, H, W, C)
        logits = self.model.class_maps(pixels)
        flipped = self.model.class_maps(np.ascontiguousarray(pixels[:, :, ::-1])) if self.flip else [None] * len(images)
        results = []
        for own, mirrored, image, name in zip(logits, flipped, images, names, strict=True):
            x, y = self.preprocessing.scale(image.size)
            inside = (round(image.size[0] / x), round(image.size[1] / y))
            mask, scores = classify_pixels(own, image.size, inside, mirrored=mirrored)
            results.append(SegmentedImage(name, image.size, mask, scores, self.class_names))
        return results


def load_segmenter(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str = "cpu",
    precision: str | None = None,
    flip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Segmenter:
    """Open a checkpoint or an exported file of a segmentation network.

    Args:
        path: The file, as for ``open_model``.
        threads: Number of threads, as for ``open_model``.
        device: Device, as for ``open_model``.
        precision: Precision, as for ``open_model``.
        flip: Average over both flips, as for ``Segmenter``.
        max_pixels: Maximum number of pixels of an image that is read.

    Raises:
        GhostNetsError: See ``open_model`` and ``Segmenter``.
    """
    model = open_model(path, threads=threads, device=device, precision=precision)
    return Segmenter(model, flip=flip, max_pixels=max_pixels)
