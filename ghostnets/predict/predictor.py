"""A checkpoint that answers: images in, classes with probabilities out."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.data import IMAGE_SUFFIXES, Preprocessing
from ghostnets.errors import ConfigurationError, DataError, ImageError

__all__ = ["Prediction", "Predictor", "find_files", "load_predictor"]


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        path: The file, or "" for an image given in memory.
        classes: Names, most probable first.
        probabilities: In the same order; those of all classes of the network add up to 1.
        error: Why there is no answer (the two lists are then empty), or None.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None


class Predictor:
    """Made by ``load_predictor``; call it with an image, a path, or a list of either.

    Args:
        checkpoint: With class names and preprocessing.
        batch_size: Images at a time.
    """

    def __init__(self, checkpoint: Checkpoint, *, batch_size: int = 32) -> None:
        self.class_names = checkpoint.class_names
        self.preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        self.model = checkpoint.build().to(memory_format=torch.channels_last)
        self.batch_size = batch_size

    def read(self, image: str | os.PathLike[str] | Image.Image) -> Tensor:
        """An image -> uint8 (C, S, S), ready for the network but for normalisation. Raises ImageError."""
        return self.preprocessing.center(self.preprocessing.read(image))

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, S, S) -> float32 (N, classes), rows add up to 1."""
        return self.model(self.preprocessing.normalize(pixels)).float().softmax(1)

    def __call__(self, image: str | os.PathLike[str] | Image.Image, *, top: int = 5) -> Prediction:
        """The answer for one image, its ``top`` most probable classes.

        Raises:
            ImageError: The image cannot be read.
        """
        probabilities = self.probabilities(self.read(image)[None])[0]
        return self._prediction("" if isinstance(image, Image.Image) else str(image), probabilities, top)

    def predict_files(self, paths: Sequence[Path], *, top: int = 5) -> Iterator[Prediction]:
        """Answers in the order of ``paths``; a file that cannot be read gives a Prediction with ``error``."""
        if top < 1:
            raise ConfigurationError(f"top is {top}; it must be at least 1.")
        for start in range(0, len(paths), self.batch_size):
            chunk = paths[start : start + self.batch_size]
            pixels: dict[Path, Tensor] = {}
            errors: dict[Path, str] = {}
            for path in chunk:
                try:
                    pixels[path] = self.read(path)
                except ImageError as error:
                    errors[path] = str(error)
            rows = self.probabilities(torch.stack([*pixels.values()])) if pixels else ()
            answers = dict(zip(pixels, rows, strict=True))
            for path in chunk:
                if path in errors:
                    yield Prediction(str(path), (), (), errors[path])
                else:
                    yield self._prediction(str(path), answers[path], top)

    def _prediction(self, path: str, probabilities: Tensor, top: int) -> Prediction:
        values, indices = probabilities.topk(min(top, len(self.class_names)))
        return Prediction(path, tuple(self.class_names[i] for i in indices.tolist()), tuple(values.tolist()))


def load_predictor(path: str | os.PathLike[str]) -> Predictor:
    """Reads a checkpoint of a training run.

    Example::

        predictor = load_predictor("runs/photos-ghostnet_100/best.safetensors")
        print(predictor("photo.jpg").classes[0])

    Raises:
        CheckpointError: The file cannot be used; the message says why.
    """
    return Predictor(read_checkpoint(path))


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Image files: each path itself, or for a folder all images in it and its subfolders, sorted.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"there is no image or folder {path}.")
    return files
