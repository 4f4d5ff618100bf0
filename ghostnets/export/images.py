"""Real images to verify and to calibrate with."""

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

__all__ = ["RealImages", "find_real_images"]


class RealImages(NamedTuple):
    """Images for a network.

    Attributes:
        pixels: uint8 (N, S, S, C), resized and cut as the network wants them.
        source: Where they come from.
        are_its_own: Whether they are of the kind that the network is for, as far as can be known.
    """

    pixels: npt.NDArray[np.uint8]
    source: str
    are_its_own: bool


def find_real_images(
    checkpoint: Checkpoint, path: Path, *, folder: str | os.PathLike[str] | None = None, most: int
) -> RealImages:
    """The images of ``folder``; or else those that the network was trained with, if its run tells where they are; or
    else pictures of Fashion-MNIST, which come with this package.

    Args:
        checkpoint: With preprocessing.
        path: Its file; in a run's folder, a config.json beside it names the data.
        folder: With images, in subfolders too.
        most: So many, spread evenly over all there are.

    Raises:
        DataError: ``folder`` holds no readable image.
    """
    preprocessing = checkpoint.preprocessing
    if folder is not None:
        return RealImages(_read_folder(Path(folder), preprocessing, most), str(folder), True)
    data = _data_of_run(path) or checkpoint.training.get("data")
    if data is not None and str(data) != EMBEDDED and Path(str(data)).is_dir():
        return RealImages(_read_folder(Path(str(data)), preprocessing, most), str(data), True)
    return RealImages(_read_embedded(preprocessing, most), "the embedded Fashion-MNIST", data == EMBEDDED)


def _data_of_run(path: Path) -> str | None:
    try:
        data = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):  # no run, or a damaged one: exporting needs none
        return None
    return data if isinstance(data, str) else None


def _read_folder(folder: Path, preprocessing: Preprocessing, most: int) -> npt.NDArray[np.uint8]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    images = []
    for path in (files[i] for i in _spread(len(files), most)):
        try:
            images.append(preprocessing.center(preprocessing.read(path)).permute(1, 2, 0).numpy())
        except ImageError:  # others will do
            continue
    if not images:
        raise DataError(f"{folder} holds no readable image ({', '.join(sorted(IMAGE_SUFFIXES))}); name another folder.")
    return np.stack(images)


def _read_embedded(preprocessing: Preprocessing, most: int) -> npt.NDArray[np.uint8]:
    pictures = FashionMnist().load(Preprocessing.standard(28, 1)).val  # uint8 (1, 28, 28) each
    chosen = [Image.fromarray(pictures[i][0].numpy()) for i in _spread(len(pictures), most)]
    return np.stack([preprocessing.center(preprocessing.read(image)).permute(1, 2, 0).numpy() for image in chosen])


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()}) if count else []
