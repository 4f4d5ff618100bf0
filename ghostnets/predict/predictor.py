"""A checkpoint that answers: images in, classes with probabilities out."""

import os

import torch
from PIL import Image
from torch import Tensor

from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.predict.answers import Prediction

__all__ = ["Predictor", "load_predictor"]


class Predictor:
    """Made by ``load_predictor``; call it with an image, a path, or a list of either.

    Args:
        checkpoint: With class names and preprocessing.
        batch_size: Images at a time.
    """

    def __init__(self, checkpoint: Checkpoint, *, batch_size: int = 32) -> None:
        self.class_names = checkpoint.class_names
        self.preprocessing = checkpoint.preprocessing
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
