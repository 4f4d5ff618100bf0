"""The batches of an epoch: which images, in which order, in whose hands."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ghostnets.data.augment import Augmentation, derive_seed
from ghostnets.data.datasets import ArrayDataset, ImageDataset
from ghostnets.errors import ConfigurationError

__all__ = ["Batch", "EvalTransform", "TrainingBatches", "evaluation_batches"]


class Batch(NamedTuple):
    """Some images."""

    pixels: Tensor  # uint8 (B, C, S, S)
    labels: Tensor  # int64 (B,)
    indices: Tensor  # int64 (B,), of the images in their set


class EvalTransform(Protocol):
    """What evaluation does with an image before it is put into a batch, as ``Preprocessing`` does."""

    def center(self, image: Tensor) -> Tensor: ...


class TrainingBatches(Dataset[Batch]):
    """The batches of one epoch in random order; ``[step]`` is one.

    What comes out depends on ``seed``, ``epoch`` and the images alone, not on what was drawn before, so that a resumed
    run sees what the undisturbed run would have seen; and the parts of a batch together are the batch, in however many
    parts it is. A last batch that is not full is left out; images that all fit in one batch make one.

    Args:
        images: At least 2.
        augmentation: What is done to them; None for nothing at all.
        batch_size: Images per step, in all parts together.
        seed: Chooses order and augmentation, with ``epoch``.
        epoch: From 0.
        balanced: Draw every class equally often, with repetition, instead of every image once.
        part: Number of the part of each batch that is given, from 0: the others are for other processes.
        parts: Number of parts.

    Raises:
        ConfigurationError: A part would have no image, or balanced drawing of images that are streamed.
    """

    def __init__(
        self,
        images: ImageDataset,
        augmentation: Augmentation | None,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        balanced: bool = False,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self.images, self.augmentation, self.seed, self.epoch = images, augmentation, seed, epoch
        self.part, self.parts = part, parts
        self.size = min(batch_size, len(images))
        if self.size < parts:
            raise ConfigurationError(
                f"a batch of {self.size} images cannot be shared by {parts} processes or accumulated parts;"
                " choose a larger --batch-size."
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        order = getattr(images, "streaming_order", None)
        if balanced and order is not None:
            raise ConfigurationError("images of shards come as they lie there, so they cannot be class_balanced.")
        if balanced:
            self.order = _balanced_order(images.labels, generator)
        elif order is not None:
            self.order = order(generator)
        else:
            self.order = torch.randperm(len(images), generator=generator)

    def __len__(self) -> int:
        return len(self.order) // self.size

    def __getitem__(self, step: int) -> Batch:
        return self.read(step, map)

    def read(self, step: int, mapping: Callable[..., Iterable[Tensor]]) -> Batch:
        """Batch number ``step``; its images are read by ``mapping``, a ``map`` or that of a pool."""
        places = torch.arange(step * self.size, (step + 1) * self.size).tensor_split(self.parts)[self.part]
        indices = self.order[places]
        images = list(mapping(self.images.__getitem__, indices.tolist()))
        if self.augmentation is None:
            pixels = torch.stack(images)
        else:
            pixels = self.augmentation(images, _seeds(self.seed, self.epoch, places))
        return Batch(pixels, self.images.labels[indices], indices)

    def stream(self, start: int = 0, *, workers: int = 0) -> Iterator[Batch]:
        """All batches from number ``start`` on.

        Args:
            start: Number of batches to leave out at the beginning.
            workers: Processes that read and augment while the network computes, as a GPU needs them. Without any, all
                cores decode files between two steps: on a CPU, a thread that decodes while the network computes makes
                all threads of the network wait for the one whose core it took (docs/log.md).
        """
        steps = range(start, len(self))
        if workers:
            yield from DataLoader(
                self, batch_size=None, sampler=steps, num_workers=workers, pin_memory=torch.cuda.is_available()
            )
        else:
            with _mapping(self.images) as mapping:
                for step in steps:
                    yield self.read(step, mapping)


def evaluation_batches(
    images: ImageDataset, preprocessing: EvalTransform, *, batch_size: int, part: int = 0, parts: int = 1
) -> Iterator[Batch]:
    """All images in order, centre cut: uint8 (B, C, S, S); the last batch may be smaller.

    Args:
        images: Any number.
        preprocessing: Its ``center`` is applied to each.
        batch_size: B.
        part: Number of the part of the images that is gone through, from 0: the others are for other processes.
        parts: Number of parts.
    """
    order = torch.arange(len(images)).tensor_split(parts)[part]
    with _mapping(images) as mapping:
        for indices in order.split(batch_size) if len(order) else ():
            pixels = torch.stack([preprocessing.center(x) for x in mapping(images.__getitem__, indices.tolist())])
            yield Batch(pixels, images.labels[indices], indices)


@contextmanager
def _mapping(images: ImageDataset) -> Iterator[Callable[..., Iterable[Tensor]]]:
    """``map`` for images in memory, that of all cores for files, whose decoders release Python's lock."""
    if isinstance(images, ArrayDataset):
        yield map
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield pool.map


def _balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """As many images as there are: a class at random, then one of its images, each time."""
    counts = labels.bincount()
    members, starts = labels.argsort(stable=True), counts.cumsum(0) - counts
    present = counts.nonzero().flatten()
    chosen = present[torch.randint(len(present), (len(labels),), generator=generator)]
    which = (torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[chosen]).long()
    return members[starts[chosen] + which]


def _seeds(seed: int, epoch: int, places: Tensor) -> list[int]:
    """One seed for each place in the order of an epoch."""
    stream = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    # SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), counting from a number that belongs to the epoch.
    z = stream + (places.numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64).tolist()
