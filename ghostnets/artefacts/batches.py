"""Images of all accepted kinds, read and computed in batches."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from ghostnets.preprocessing import FittedImage, ImageSource

__all__ = ["compute_in_batches"]

T = TypeVar("T")


def compute_in_batches(
    images: Sequence[ImageSource],
    read: Callable[[ImageSource, str | None], FittedImage],
    compute: Callable[[Sequence[FittedImage], Sequence[str]], list[T]],
    *,
    batch_size: int,
) -> list[T]:
    """Read images and compute a result for each.

    Args:
        images: Paths, bytes, arrays or PIL images.
        read: Image and its name in messages, None for a single image without path -> preprocessed image.
        compute: Preprocessed images of a batch and their paths, empty if an image has none -> results.
        batch_size: Number of images that are read and held at once.
    """
    found: list[T] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        paths = [os.fspath(image) if isinstance(image, str | os.PathLike) else "" for image in batch]
        names = [path or (f"image {start + i} of the list" if len(images) > 1 else "") for i, path in enumerate(paths)]
        found += compute([read(image, name or None) for image, name in zip(batch, names, strict=True)], paths)
    return found
