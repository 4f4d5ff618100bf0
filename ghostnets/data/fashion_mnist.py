"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747; MIT licence): 28 x 28 grey pictures of ten kinds of clothes.

A stratified subset comes with the package, so that everything can be tried without a download: 12,000 of the 60,000
training images and 2,000 of the 10,000 test images, made by ``scripts/make_fashion_mnist.py``. The whole set is read
from a folder, or downloaded by torchvision.
"""

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ghostnets.data.datasets import ArrayDataset, DatasetSplits, validation_mask
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing

__all__ = ["CLASS_NAMES", "FashionMnist", "read_idx"]

CLASS_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
VALIDATION_SHARE = 1 / 12  # 1,000 of 12,000 training images


@dataclass(frozen=True)
class FashionMnist:
    """The embedded subset, or the whole set. ``val`` is split off the training images; ``test`` is the published one.

    Attributes:
        full: Use all 70,000 images.
        root: With ``full``: a folder that holds the four ``*-ubyte.gz`` files. Without it torchvision downloads them
            once to its usual place.
        seed: Of the split into training and validation images.
    """

    full: bool = False
    root: Path | None = None
    seed: int = 0
    class_names: tuple[str, ...] = field(default=CLASS_NAMES, init=False)
    typical_size: int = field(default=28, init=False)
    channels: int = field(default=1, init=False)

    @property
    def name(self) -> str:
        return "fashion-mnist-full" if self.full else "fashion-mnist"

    def count(self) -> int:
        """Number of images in all parts."""
        return 70_000 if self.full else 14_000

    def load(
        self,
        preprocessing: Preprocessing,
        *,
        skip_corrupt: bool = False,
        on_image: Callable[[], None] = lambda: None,
    ) -> DatasetSplits:
        """Reads all parts; arguments as ``ImageFolder.load``.

        Raises:
            DataError: The files of the whole set are missing or damaged.
            ConfigurationError: ``preprocessing`` asks for another size or number of channels than 28 and 1.
        """
        if (preprocessing.resize_to, preprocessing.channels) != (28, 1):
            raise ConfigurationError(
                f"Fashion-MNIST has 28 x 28 grey images, but {preprocessing.resize_to} pixels and"
                f" {preprocessing.channels} channels are asked for; choose --image-size 28 --in-chans 1."
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

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        """uint8 (N, 1, 28, 28) and int64 (N,)."""
        if not self.full:
            archive = files("ghostnets.data").joinpath("embedded", "fashion_mnist.npz")
            with archive.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        elif self.root is None:
            return _download(part)
        else:
            prefix = "train" if part == "train" else "t10k"
            pixels = read_idx(self.root / f"{prefix}-images-idx3-ubyte.gz")
            labels = read_idx(self.root / f"{prefix}-labels-idx1-ubyte.gz")
        return torch.from_numpy(pixels.copy())[:, None], torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """An ``*-ubyte.gz`` file -> uint8 array. The format: two zero bytes, type, rank, sizes as big-endian 32 bits, data.

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
            f"there is no {path}; the folder must hold the four *-ubyte.gz files of Fashion-MNIST"
            " (Debian's package dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist)."
        ) from error
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again.") from error


def _download(part: str) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import FashionMNIST

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ghostnets"
    try:
        dataset = FashionMNIST(str(cache), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({str(error).splitlines()[0].rstrip(':')});"
            " give a folder that holds its four *-ubyte.gz files: --root FOLDER."
        ) from error
    return dataset.data[:, None], dataset.targets.long()
