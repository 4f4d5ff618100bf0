"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747; MIT licence): 28 x 28 grayscale images of clothes.

A stratified subset is embedded in the package, for use without a download: 12,000 of the 60,000 training images and
2,000 of the 10,000 test images, made by ``scripts/make_fashion_mnist.py``. The full set is read from a folder, or
downloaded by torchvision.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ghostnets.data.datasets import ArrayDataset, DatasetSplits, ImageDataset, validation_mask
from ghostnets.data.source import check_split
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.files import user_cache
from ghostnets.preprocessing import Preprocessing

__all__ = ["CLASS_NAMES", "FashionMnist", "read_idx"]

CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
VALIDATION_SHARE = 1 / 12  # 1,000 of 12,000 training images


@dataclass(frozen=True)
class FashionMnist:
    """The embedded subset, or the full set; a ``DataSource``.

    ``val`` is split off the training images; ``test`` is the published test set.

    Attributes:
        full: All 70,000 images.
        root: With ``full``, the folder of the four ``*-ubyte.gz`` files; without it torchvision downloads them once
            into the cache.
        seed: Seed of the split into training and validation images.
    """

    full: bool = False
    root: Path | None = None
    seed: int = 0
    class_names: tuple[str, ...] = field(default=CLASS_NAMES, init=False)
    typical_size: int = field(default=28, init=False)
    channels: int = field(default=1, init=False)
    split_names = ("train", "val", "test")
    val_from_train = True
    multi_label = False
    task = "classify"
    notes = ()

    @property
    def name(self) -> str:
        return "fashion-mnist-full" if self.full else "fashion-mnist"

    @property
    def num_images(self) -> int:
        return 70_000 if self.full else 14_000

    @property
    def identity(self) -> str:
        """The name, as the images never change."""
        return self.name

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of images of each class, by split; all classes have the same."""
        train, test = (6000, 1000) if self.full else (1200, 200)
        val = round(VALIDATION_SHARE * train)
        counts = {"train": train - val, "val": val, "test": test}
        return {split: (count,) * len(self.class_names) for split, count in counts.items()}

    @property
    def split_sizes(self) -> dict[str, int]:
        return {split: sum(images) for split, images in self.class_counts.items()}

    def load(self, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None) -> DatasetSplits:
        """Read all splits (see ``DataSource``).

        Raises:
            DataError: The files of the full set are missing or damaged.
            ConfigurationError: ``preprocessing`` is for another size or number of channels than 28 and 1.
        """
        if (preprocessing.resize_to, preprocessing.channels) != (28, 1):
            raise ConfigurationError(
                f"Fashion-MNIST has 28 x 28 grayscale images, not {preprocessing.resize_to} pixels and"
                f" {preprocessing.channels} channels; use --image-size 28 --in-chans 1."
            )
        (train_pixels, train_labels), (test_pixels, test_labels) = self._read("train"), self._read("test")
        for _ in range(len(train_labels) + len(test_labels)):
            on_image()
        in_val = validation_mask(train_labels, VALIDATION_SHARE, self.seed)
        return DatasetSplits(
            train=ArrayDataset(train_pixels[~in_val], train_labels[~in_val]),
            val=ArrayDataset(train_pixels[in_val], train_labels[in_val]),
            test=ArrayDataset(test_pixels, test_labels),
        )

    def load_split(
        self, split: str, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None
    ) -> tuple[ImageDataset, tuple[str, ...]]:
        """Read one split (see ``DataSource``); no file is ever left out."""
        check_split(self, split)
        dataset: ImageDataset = getattr(self.load(preprocessing, on_image=on_image), split)
        return dataset, ()

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        """Read the images, uint8 (N, 1, 28, 28), and labels, int64 (N,), of a split."""
        if not self.full:
            archive = files("ghostnets.data").joinpath("embedded", "fashion_mnist.npz")
            with archive.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        elif self.root is None:
            return _download(split)
        else:
            prefix = "train" if split == "train" else "t10k"
            pixels = read_idx(self.root / f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(self.root / f"{prefix}-labels-idx1-ubyte.gz")
        return torch.from_numpy(pixels.copy())[:, None], torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """Read an ``*-ubyte.gz`` file as a uint8 array.

    The format is two zero bytes, type, rank, sizes as big-endian 32-bit integers, data.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, ">u4", count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no {path}; the folder must contain the four *-ubyte.gz files of Fashion-MNIST"
            " (Debian's package dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist)."
        ) from error
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged ({error}); download it again.") from error


def _download(split: str) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import FashionMNIST

    try:
        dataset = FashionMNIST(str(user_cache()), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({str(error).splitlines()[0].rstrip(':')});"
            " give a folder with its four *-ubyte.gz files: --root FOLDER."
        ) from error
    return dataset.data[:, None], dataset.targets.long()
