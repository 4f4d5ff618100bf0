"""Labelled images in memory or on disk."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ghostnets.cores import usable_cores
from ghostnets.data.labels import Label, indices_of
from ghostnets.data.stored_images import content_digest, read_stored_image
from ghostnets.errors import ImageError
from ghostnets.preprocessing import Preprocessing

__all__ = [
    "ArrayDataset",
    "DatasetSplits",
    "FileDataset",
    "ImageDataset",
    "ImageFiles",
    "JoinedDataset",
    "content_digest",
    "encode_labels",
    "load_files",
    "load_with_large_training_images",
    "validation_mask",
]

TRAINING_SCALE = 1.5  # shorter side of training images relative to the input, so that crops keep their resolution
CACHE_BYTES = 2 * 1024**3  # largest size of decoded images that are kept in memory


class ImageDataset(Protocol):
    """A dataset of labelled images; ``[i]`` is uint8 (C, H, W).

    ``labels`` are int64 (N,), or of multi-label data float32 (N, num_classes), 1 for each class of the image and 0 for
    the others; of images with boxes they are as ``data.boxes.folder.BoxFolder`` describes. Images with masks have these
    as a further channel (``data.masks.folder.MaskFolder``).
    """

    labels: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str:
        """Path of the image, SHARD:MEMBER, or its position in the data set if it has no file."""

    def digests(self) -> np.ndarray | None:
        """``content_digest`` of each image, uint64 (N,); None if all files would have to be read."""


class StoredContent(Protocol):
    """What an image is read from: ``ImagePath``, or an image with its mask (``MaskPair``)."""

    def read_bytes(self) -> bytes: ...


Reader = Callable[[Any, Preprocessing], Tensor]  # stored content -> uint8 (C, H, W)


class ImageFiles(NamedTuple):
    """Files of the images of a data set, and their ``content_digest``, uint64 (N,)."""

    paths: Sequence[StoredContent]
    digests: np.ndarray


class ArrayDataset:
    """Images in memory.

    Args:
        pixels: uint8 (N, C, H, W), or a list of N tensors (C, H, W) of different sizes; or features, float32 (N, D).
        labels: As for ``ImageDataset``.
        files: Files of the images, if they have any.
    """

    def __init__(self, pixels: Tensor | list[Tensor], labels: Tensor, files: ImageFiles | None = None) -> None:
        if isinstance(pixels, list) and len({image.shape for image in pixels}) == 1:
            pixels = torch.stack(pixels)
        self.pixels = pixels
        self.labels = labels
        self.files = files
        self._digests: np.ndarray | None = None if files is None else files.digests

    @property
    def common_size(self) -> tuple[int, int] | None:
        """(H, W) of all images, or None if they differ."""
        return None if isinstance(self.pixels, list) else (self.pixels.shape[2], self.pixels.shape[3])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]

    def name(self, index: int) -> str:
        return f"image {index}" if self.files is None else str(self.files.paths[index])

    def digests(self) -> np.ndarray:
        if self._digests is None:
            self._digests = np.array([content_digest(image.numpy().tobytes()) for image in self.pixels], np.uint64)
        return self._digests


class FileDataset:
    """Images on disk, decoded on each access.

    Args:
        files: The files and their digests.
        labels: As for ``ImageDataset``.
        preprocessing: Number of channels, shorter side and interpolation of the images read.
        read: Reads one of the files.
        common_size: (H, W) of all images as they are read, or None if they differ.
    """

    def __init__(
        self,
        files: ImageFiles,
        labels: Tensor,
        preprocessing: Preprocessing,
        read: Reader = read_stored_image,
        common_size: tuple[int, int] | None = None,
    ) -> None:
        self.files = files
        self.common_size = common_size
        self.labels = labels
        self.preprocessing = preprocessing
        self.read = read

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(self.files.paths[index], self.preprocessing)

    def name(self, index: int) -> str:
        return str(self.files.paths[index])

    def digests(self) -> np.ndarray:
        return self.files.digests


class JoinedDataset:
    """Concatenation of data sets, with labels of its own.

    Args:
        datasets: The data sets.
        labels: As for ``ImageDataset``, for all of them.
    """

    def __init__(self, datasets: Sequence[ImageDataset], labels: Tensor) -> None:
        self.datasets, self.labels = datasets, labels
        self.starts = np.cumsum([0, *map(len, datasets)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        dataset, position = self._locate(index)
        return dataset[position]

    def name(self, index: int) -> str:
        dataset, position = self._locate(index)
        return dataset.name(position)

    def digests(self) -> np.ndarray | None:
        digests = [dataset.digests() for dataset in self.datasets]
        known = [values for values in digests if values is not None]
        return np.concatenate(known) if len(known) == len(digests) else None

    def _locate(self, index: int) -> tuple[ImageDataset, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.datasets[number], index - int(self.starts[number])


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

    @property
    def identity(self) -> str:
        """Digest of the labels and, where they are known, the contents of all images, in order."""
        digest = hashlib.sha256()
        for images in (self.train, self.val, self.test):
            if images is None:
                continue
            contents = images.digests()
            kind = "<f4" if images.labels.ndim == 3 else "<i8"  # boxes have fractions
            digest.update(images.labels.numpy().astype(kind).tobytes())
            digest.update(b"" if contents is None else contents.astype("<u8").tobytes())
        return digest.hexdigest()


def load_files(
    paths: Sequence[StoredContent],
    labels: Tensor,
    preprocessing: Preprocessing,
    *,
    read: Reader = read_stored_image,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[ImageDataset, list[str]]:
    """Decode every file once, so that damaged files fail before training starts, and cache what fits in memory.

    Args:
        paths: One file per image.
        labels: As for ``ImageDataset``.
        preprocessing: Number of channels, shorter side and interpolation of the images read.
        read: Reads one of the files.
        on_image: Callback after each file, for a progress bar.

    Returns:
        The readable images, in memory up to ``CACHE_BYTES``, else on disk; one sentence for each unreadable file.
    """

    def attempt(path: StoredContent) -> tuple[Tensor, int] | ImageError:
        try:
            return read(path, preprocessing), content_digest(path.read_bytes())
        except ImageError as error:
            return error

    cache: list[Tensor] | None = []
    sizes: set[tuple[int, int]] = set()
    cached_bytes = 0
    readable: list[int] = []
    digests: list[int] = []
    problems: list[str] = []
    chunk = 256  # bounds the images in flight
    with ThreadPoolExecutor(usable_cores()) as pool:  # decoders release the GIL
        for start in range(0, len(paths), chunk):
            for index, outcome in enumerate(pool.map(attempt, paths[start : start + chunk]), start):
                on_image()
                if isinstance(outcome, ImageError):
                    problems.append(str(outcome))
                    continue
                image, digest = outcome
                readable.append(index)
                digests.append(digest)
                sizes.add((image.shape[1], image.shape[2]))
                cached_bytes += image.numel()
                if cached_bytes > CACHE_BYTES:
                    cache = None
                if cache is not None:
                    cache.append(image)
    labels = labels[readable]
    files = ImageFiles([paths[index] for index in readable], np.array(digests, dtype=np.uint64))
    if cache is not None:
        return ArrayDataset(cache, labels, files), problems
    return FileDataset(files, labels, preprocessing, read, sizes.pop() if len(sizes) == 1 else None), problems


def encode_labels(labels: Sequence[Label], num_classes: int) -> Tensor:
    """Convert the labels of files to those of an ``ImageDataset``."""
    if labels and isinstance(labels[0], tuple):
        encoded = torch.zeros(len(labels), num_classes)
        for row, label in enumerate(labels):
            encoded[row, list(indices_of(label))] = 1
        return encoded
    return torch.tensor(labels, dtype=torch.int64)


def validation_mask(labels: Tensor, share: float, seed: int) -> Tensor:
    """Choose validation images, class by class: bool (N,), True for validation.

    Args:
        labels: As for ``ImageDataset``; each class must occur at least twice, unless the data are multi-label.
        share: Share of each class, rounded to a number of images that leaves at least one on either side.
        seed: Seed of the choice.
    """
    if labels.ndim == 2:
        return _stratify_multi_label(labels, share, seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return mask


def _stratify_multi_label(labels: Tensor, share: float, seed: int) -> Tensor:
    """Validation images of multi-label data, float32 (N, classes).

    The rarest classes choose first, as in iterative stratification (Sechidis et al., ECML PKDD 2011), so that each has
    its share as far as the images allow; images without a label come last. Every class keeps a training image.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    has = labels[order].bool()
    in_val, is_open = torch.zeros(len(order), dtype=torch.bool), torch.ones(len(order), dtype=torch.bool)
    rarest_first = has.sum(0).argsort(stable=True).tolist()
    for members in (*(has[:, label] for label in rarest_first), ~has.any(1)):
        count = int(members.sum())
        wanted = min(max(1, round(share * count)), count - 1) - int((members & in_val).sum())
        chosen = (members & is_open).nonzero().flatten()
        in_val[chosen[: max(0, wanted)]] = True
        is_open[chosen] = False
    for label in rarest_first:
        members = has[:, label]
        if members.any() and not (members & ~in_val).any():
            in_val[members.nonzero()[0]] = False
    return in_val[order.argsort()]


def load_with_large_training_images(
    names: Iterable[str], preprocessing: Preprocessing, load: Callable[[str, Preprocessing], ImageDataset]
) -> DatasetSplits:
    """Read the splits of images with boxes or masks: training images with their aspect ratio, for crops.

    Args:
        names: Names of the splits.
        preprocessing: Preprocessing of the network, for all splits but that of training.
        load: Reads a split with a preprocessing.
    """
    side = round(TRAINING_SCALE * preprocessing.image_size)
    training = replace(preprocessing, resize_to=side, fit="crop")
    datasets = {name: load(name, training if name == "train" else preprocessing) for name in names}
    return DatasetSplits(datasets["train"], datasets["val"], datasets.get("test"))
