"""Images of all accepted kinds, read and computed in batches."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from ghostnets.preprocessing import ImageSource

__all__ = ["compute_in_batches", "path_of"]

Read = TypeVar("Read")
Result = TypeVar("Result")


def path_of(image: ImageSource) -> str:
    """Return the path of an image, or "" for an image in memory."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else ""


def compute_in_batches(
    images: Sequence[ImageSource],
    read: Callable[[ImageSource, str], Read],
    compute: Callable[[Sequence[Read], Sequence[str]], list[Result]],
    *,
    batch_size: int,
) -> list[Result]:
    """Read the images of a list and compute a result for each.

    Args:
        images: Paths, bytes, arrays or PIL images.
        read: Image and its name in messages -> preprocessed image.
        compute: Preprocessed images of a batch and their paths (``path_of``) -> results.
        batch_size: Number of images that are read and held at once.
    """
    found: list[Result] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        paths = [path_of(image) for image in batch]
        names = [path or f"image {start + index} of the list" for index, path in enumerate(paths)]
        found += compute([read(image, name) for image, name in zip(batch, names, strict=True)], paths)
    return found
