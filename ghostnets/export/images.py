"""Sample images for verification and int8 calibration."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets.checkpoints import Checkpoint
from ghostnets.data import EMBEDDED, FashionMnist
from ghostnets.errors import DataError, ImageError
from ghostnets.preprocessing import IMAGE_SUFFIXES, Preprocessing

__all__ = ["SampleImages", "find_sample_images"]


class SampleImages(NamedTuple):
    """Real images, preprocessed for a network.

    Attributes:
        pixels: uint8 (N, S, S, C), resized and cropped by the network's preprocessing.
        source: Folder or data set of the images.
        is_in_domain: Whether the images are of the kind that the network was trained on, as far as known.
    """

    pixels: npt.NDArray[np.uint8]
    source: str
    is_in_domain: bool


def find_sample_images(
    checkpoint: Checkpoint, path: Path, *, folder: str | os.PathLike[str] | None = None, max_images: int
) -> SampleImages:
    """Load images of ``folder``, else of the run's training data if it exists, else of the embedded Fashion-MNIST.

    Args:
        checkpoint: Checkpoint of the network.
        path: Path of the checkpoint; config.json of a run in the same folder names its data.
        folder: Folder of images, searched recursively.
        max_images: Maximum number of images, spread evenly over all available ones.

    Raises:
        DataError: ``folder`` contains no readable image.
    """
    preprocessing = checkpoint.preprocessing
    if folder is not None:
        return SampleImages(_read_folder(Path(folder), preprocessing, max_images), str(folder), True)
    data = _data_of_run(path) or checkpoint.training.get("data")
    if data is not None and str(data) != EMBEDDED and Path(str(data)).is_dir():
        return SampleImages(_read_folder(Path(str(data)), preprocessing, max_images), str(data), True)
    return SampleImages(_read_embedded(preprocessing, max_images), "the embedded Fashion-MNIST", data == EMBEDDED)


def _data_of_run(path: Path) -> str | None:
    try:
        data = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):  # no run or a damaged one; export does not need it
        return None
    return data if isinstance(data, str) else None


def _read_folder(folder: Path, preprocessing: Preprocessing, max_images: int) -> npt.NDArray[np.uint8]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    images = []
    for path in (files[i] for i in _spread(len(files), max_images)):
        try:
            images.append(preprocessing.center(preprocessing.read(path)).permute(1, 2, 0).numpy())
        except ImageError:  # the readable ones suffice
            continue
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{folder} contains no readable image ({suffixes}); choose another folder.")
    return np.stack(images)


def _read_embedded(preprocessing: Preprocessing, max_images: int) -> npt.NDArray[np.uint8]:
    dataset = FashionMnist().load(Preprocessing.standard(28, 1)).val  # uint8 (1, 28, 28) each
    images = [Image.fromarray(dataset[i][0].numpy()) for i in _spread(len(dataset), max_images)]
    return np.stack([preprocessing.center(preprocessing.read(image)).permute(1, 2, 0).numpy() for image in images])


def _spread(count: int, max_indices: int) -> list[int]:
    """Choose at most ``max_indices`` evenly spaced indices below ``count``."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, max_indices)).round()}) if count else []
