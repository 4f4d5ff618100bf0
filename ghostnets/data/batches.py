"""The batches of an epoch: which images, in which order, in which process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ghostnets.cores import usable_cores
from ghostnets.data.augment import derive_seed
from ghostnets.data.datasets import ArrayDataset, ImageDataset
from ghostnets.errors import ConfigurationError

__all__ = ["Batch", "BatchAugmentation", "EvalTransform", "TrainingBatches", "evaluation_batches"]


class Batch(NamedTuple):
    """A batch of images, or one process's share of it."""

    pixels: Tensor  # uint8 (B, C, S, S)
    labels: Tensor  # int64 (B,), or as the data set has them
    indices: Tensor  # int64 (B,), into the dataset


class EvalTransform(Protocol):
    """The deterministic transform of evaluation, such as ``Preprocessing``."""

    def center(self, image: Tensor) -> Tensor: ...


class BatchAugmentation(Protocol):
    """Augmentation of training images with their labels: ``Augmentation``, ``BoxBatchAugmentation``."""

    def augment(self, images: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]: ...


class TrainingBatches(Dataset[Batch]):
    """The batches of one epoch in random order; ``[step]`` is one batch.

    Batches depend on ``seed``, ``epoch`` and the images alone, not on earlier draws: a resumed run sees what the
    uninterrupted run would have seen, and the shares of all processes together are the batch, whatever their number. An
    incomplete last batch is dropped, unless it is the only one.

    Args:
        images: At least 2 images.
        augmentation: Augmentation of the images; None for none.
        batch_size: Images per step, over all processes.
        seed: Seed of order and augmentation, combined with ``epoch``.
        epoch: Epoch, from 0.
        class_balanced: Draw every class equally often, with replacement, instead of every image once.
        rank: Number of this process, from 0.
        world_size: Number of processes that share each batch.

    Raises:
        ConfigurationError: A process would get no image, or class-balanced drawing of streamed images.
    """

    def __init__(
        self,
        images: ImageDataset,
        augmentation: BatchAugmentation | None,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        class_balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images, self.augmentation, self.seed, self.epoch = images, augmentation, seed, epoch
        self.rank, self.world_size = rank, world_size
        self.batch_size = min(batch_size, len(images))
        if self.batch_size < world_size:
            raise ConfigurationError(
                f"a batch of {self.batch_size} images cannot be divided among {world_size} processes;"
                " choose a larger --batch-size."
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
        streaming_order = getattr(images, "streaming_order", None)
        if class_balanced and streaming_order is not None:
            raise ConfigurationError("shards are streamed in their order, so they cannot be class_balanced.")
        if class_balanced:
            self.order = _class_balanced_order(images.labels, generator)
        elif streaming_order is not None:
            self.order = streaming_order(generator)
        else:
            self.order = torch.randperm(len(images), generator=generator)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        return self.read(step, map)

    def read(self, step: int, map_images: Callable[..., Iterable[Tensor]]) -> Batch:
        """Read batch ``step``; ``map_images`` is ``map`` or the ``map`` of a pool."""
        positions = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        positions = positions.tensor_split(self.world_size)[self.rank]
        indices = self.order[positions]
        images = list(map_images(self.images.__getitem__, indices.tolist()))
        labels = self.images.labels[indices]
        if self.augmentation is None:
            return Batch(torch.stack(images), labels, indices)
        seeds = _sample_seeds(self.seed, self.epoch, positions)
        return Batch(*self.augmentation.augment(images, labels, seeds), indices)

    def stream(self, start: int = 0, *, workers: int = 0) -> Iterator[Batch]:
        """Iterate over the batches from step ``start`` on.

        Args:
            start: First step.
            workers: Processes that read and augment while the network computes, for GPUs. With 0, all cores decode
                files between two steps: on a CPU, a thread that decodes during a step delays all threads of the network
                (docs/log.md).
        """
        steps = range(start, len(self))
        if workers:
            yield from DataLoader(
                self, batch_size=None, sampler=steps, num_workers=workers, pin_memory=torch.cuda.is_available()
            )
        else:
            with _image_map(self.images) as map_images:
                for step in steps:
                    yield self.read(step, map_images)


def evaluation_batches(
    images: ImageDataset, preprocessing: EvalTransform, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Iterate over all images in order, centre-cropped: uint8 (B, C, S, S); the last batch may be smaller.

    Args:
        images: Any number of images.
        preprocessing: Transform whose ``center`` is applied to each image.
        batch_size: Images per batch, B.
        rank: Number of this process, from 0.
        world_size: Number of processes that divide the images among them.
    """
    order = torch.arange(len(images)).tensor_split(world_size)[rank]
    with _image_map(images) as map_images:
        for indices in order.split(batch_size) if len(order) else ():
            pixels = torch.stack([preprocessing.center(x) for x in map_images(images.__getitem__, indices.tolist())])
            yield Batch(pixels, images.labels[indices], indices)


@contextmanager
def _image_map(images: ImageDataset) -> Iterator[Callable[..., Iterable[Tensor]]]:
    """``map`` for images in memory; for files the ``map`` of a pool of all cores, as decoders release the GIL."""
    if isinstance(images, ArrayDataset):
        yield map
    else:
        with ThreadPoolExecutor(usable_cores()) as pool:
            yield pool.map


def _class_balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N samples with replacement, N being the number of images: a random class, then one of its images."""
    counts = labels.bincount()
    members, starts = labels.argsort(stable=True), counts.cumsum(0) - counts
    present = counts.nonzero().flatten()
    chosen = present[torch.randint(len(present), (len(labels),), generator=generator)]
    which = (torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[chosen]).long()
    return members[starts[chosen] + which]


def _sample_seeds(seed: int, epoch: int, positions: Tensor) -> list[int]:
    """Derive one seed for each position in the order of an epoch."""
    stream = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    # SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), counting from a number that belongs to the epoch.
    z = stream + (positions.numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64).tolist()
