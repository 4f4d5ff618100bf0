"""Labelled images in memory or on disk."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ghostnets.errors import ImageError
from ghostnets.preprocessing import Preprocessing

__all__ = [
    "ArrayDataset",
    "DatasetSplits",
    "FileDataset",
    "ImageDataset",
    "load_files",
    "validation_mask",
]

CACHE_BYTES = 2 * 1024**3  # largest size of decoded images that are kept in memory


class ImageDataset(Protocol):
    """A dataset of labelled images: ``labels`` int64 (N,); ``[i]`` is uint8 (C, H, W)."""

    labels: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


class ArrayDataset:
    """Images in memory.

    Args:
        pixels: uint8 (N, C, H, W), or a list of N tensors (C, H, W) of different sizes; or features, float32 (N, D).
        labels: int64 (N,).
    """

    def __init__(self, pixels: Tensor | list[Tensor], labels: Tensor) -> None:
        if isinstance(pixels, list) and len({image.shape for image in pixels}) == 1:
            pixels = torch.stack(pixels)
        self.pixels = pixels
        self.labels = labels

    @property
    def common_size(self) -> tuple[int, int] | None:
        """(H, W) of all images, or None if they differ."""
        return None if isinstance(self.pixels, list) else (self.pixels.shape[2], self.pixels.shape[3])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


class FileDataset:
    """Images on disk, decoded on each access.

    Args:
        paths: One file per image.
        labels: int64 (N,).
        preprocessing: Number of channels, shorter side and interpolation of the images read.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, preprocessing: Preprocessing) -> None:
        self.paths = paths
        self.labels = labels
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessing.read(self.paths[index])


@dataclass(frozen=True)
class DatasetSplits:
    """The splits of a data set, ready for training.

    Attributes:
        train: Training images.
        val: Validation images, on which the best epoch is chosen.
        test: Test images, on which nothing is chosen, or None if the data has no such split.
        skipped: One sentence for each unreadable file that was left out.
    """

    train: ImageDataset
    val: ImageDataset
    test: ImageDataset | None
    skipped: tuple[str, ...] = ()


def load_files(
    paths: Sequence[Path],
    labels: Tensor,
    preprocessing: Preprocessing,
    *,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[ImageDataset, list[str]]:
    """Decode every file once, so that damaged files fail before training starts, and cache what fits in memory.

    Args:
        paths: One file per image.
        labels: int64 (N,).
        preprocessing: Number of channels, shorter side and interpolation of the images read.
        on_image: Callback after each file, for a progress bar.

    Returns:
        The readable images, in memory up to ``CACHE_BYTES``, else on disk; one sentence for each unreadable file.
    """
    dataset = FileDataset(paths, labels, preprocessing)

    def attempt(index: int) -> Tensor | ImageError:
        try:
            return dataset[index]
        except ImageError as error:
            return error

    cache: list[Tensor] | None = []
    cached_bytes = 0
    readable: list[int] = []
    problems: list[str] = []
    chunk = 256  # bounds the images in flight
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
        for start in range(0, len(dataset), chunk):
            indices = range(start, min(start + chunk, len(dataset)))
            for index, image in zip(indices, pool.map(attempt, indices), strict=True):
                on_image()
                if isinstance(image, ImageError):
                    problems.append(str(image))
                    continue
                readable.append(index)
                cached_bytes += image.numel()
                if cached_bytes > CACHE_BYTES:
                    cache = None
                if cache is not None:
                    cache.append(image)
    labels = labels[readable]
    if cache is not None:
        return ArrayDataset(cache, labels), problems
    kept = [paths[index] for index in readable]
    return FileDataset(kept, labels, preprocessing), problems


def validation_mask(labels: Tensor, share: float, seed: int) -> Tensor:
    """Choose validation images, class by class: bool (N,), True for validation.

    Args:
        labels: int64 (N,); each class must occur at least twice.
        share: Share of each class, rounded to a number of images that leaves at least one on either side.
        seed: Seed of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return mask
