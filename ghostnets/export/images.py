"""Sample images for verification and int8 calibration."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ghostnets.checkpoints import Checkpoint
from ghostnets.data import EMBEDDED, FashionMnist, find_sample, spread
from ghostnets.data.archives import find_unpacked
from ghostnets.errors import DataError
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_count

__all__ = ["SampleImages", "find_sample_images"]


class SampleImages(NamedTuple):
    """Real images, preprocessed for a network.

    Attributes:
        pixels: uint8 (N, S, S, C), resized and cropped by the network's preprocessing.
        source: Folder or data set of the images, and how many of them cannot be read.
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
        folder: Folder of images, searched recursively, or folder or URL of shards.
        max_images: Maximum number of images, spread evenly over all available ones of a folder.

    Raises:
        DataError: The data contain no readable image.
    """
    preprocessing = checkpoint.preprocessing
    if folder is not None:
        return _read_data(os.fspath(folder), checkpoint, max_images)
    data = _data_of_run(path) or checkpoint.training.get("data")
    if (
        data is not None
        and str(data) != EMBEDDED
        and (Path(str(data)).exists() or find_unpacked(str(data)) is not None)
    ):
        return _read_data(str(data), checkpoint, max_images)
    return SampleImages(_read_embedded(preprocessing, max_images), "the embedded Fashion-MNIST", data == EMBEDDED)


def _data_of_run(path: Path) -> str | None:
    try:
        data = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):  # no run or a damaged one; export does not need it
        return None
    return data if isinstance(data, str) else None


def _read_data(location: str, checkpoint: Checkpoint, max_images: int) -> SampleImages:
    """Read images of a folder or of shards; unreadable images are skipped, and counted in the source."""
    preprocessing, has_masks = checkpoint.preprocessing, checkpoint.task == "segment"
    sample = find_sample(location, most=max_images, splits=(), has_masks=has_masks)
    images, problems = sample.load(preprocessing, lambda: None)
    if not len(images):
        raise DataError(f"{location} contains no readable image: {problems[0]} Choose another folder.")
    pixels = _stack(preprocessing, [images[i] for i in range(len(images))])
    left_out = f", without {format_count(len(problems), 'unreadable image')}: {problems[0]}" if problems else ""
    return SampleImages(pixels, f"{location}{left_out}", True)


def _read_embedded(preprocessing: Preprocessing, max_images: int) -> npt.NDArray[np.uint8]:
    dataset = FashionMnist().load(Preprocessing.standard(28, 1)).val  # uint8 (1, 28, 28) each
    images = [Image.fromarray(dataset[i][0].numpy()) for i in spread(range(len(dataset)), max_images)]
    return _stack(preprocessing, [preprocessing.read(image) for image in images])


def _stack(preprocessing: Preprocessing, images: list[Tensor]) -> npt.NDArray[np.uint8]:
    return np.stack([preprocessing.center(image).permute(1, 2, 0).numpy() for image in images])
