"""What all shipped networks have in common: pixels in, scores out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.description import Description
from ghostnets.errors import ArtefactError, ConfigurationError, GhostNetsError
from ghostnets.preprocessing import Preprocessing

__all__ = ["Array", "Artefact", "normalize"]

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Artefact(ABC):
    """A network in a file, opened by ``open_artefact``.

    Call it with images, resized and cut already: uint8 (N, H, W, C), RGB or grey, any N; H and W are the
    ``image_size`` of the description's preprocessing, unless ``description.any_size``. What the file does not do
    itself, normalisation or softmax, is done here.

    Every artefact may be called from several threads. Whether the calls run side by side is the runtime's affair: those
    of ONNX Runtime and torch do; the engine, OpenVINO, ExecuTorch and LiteRT take them one after the other.

    Attributes:
        path: The file.
        description: What it says of itself.
        kind: Name of the format: ``"onnx"``, ``"engine"``, ...
        runtime: What computes, with its version: ``"onnxruntime 1.32.0"``.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, description: Description, runtime: str) -> None:
        self.path, self.description, self.runtime = path, description, runtime

    @abstractmethod
    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        """Images as the file wants them, at least one -> its outputs, each of N rows."""

    def _features(self, x: npt.NDArray[Any]) -> Array:
        """As ``_run``, the features alone."""
        return self._run(x)[1]

    def copy(self) -> "Artefact":
        """The same network, whose calls run beside those of this one: itself, where the runtime does that anyway.

        Raises:
            GhostNetsError: As ``open_artefact``, where the file must be read again.
        """
        return self

    def __call__(self, images: Pixels) -> Array:
        """Float32 (N, classes): what ``description.output`` says, logits or probabilities.

        Raises:
            ConfigurationError: ``images`` has another shape or type.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        scores = self._ask(images, lambda x: self._run(x)[0])
        if scores.shape[1:] != (len(self.description.class_names),):
            raise ArtefactError(
                f"{self.path} answers with {scores.shape[1:]} numbers an image, but names"
                f" {len(self.description.class_names)} classes; export the network again."
            )
        return scores

    def probabilities(self, images: Pixels) -> Array:
        """Float32 (N, classes), rows that add up to 1. Raises as a call."""
        scores = self(images)
        if self.description.output == "probabilities":
            return scores
        powers = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
        result: Array = powers / powers.sum(1, keepdims=True)
        return result

    def features(self, images: Pixels) -> Array:
        """Float32 (N, features): what the last linear layer takes, an embedding of the image.

        A checkpoint gives them always, by a second network without that layer; another file where it was exported with
        them, from the same run as the scores.

        Raises:
            ConfigurationError: The file has no features, or as a call.
        """
        if not self.description.has_features:
            raise ConfigurationError(
                f"{self.path} gives no features; export it with --features, or use the checkpoint itself."
            )
        return self._ask(images, self._features)

    def _ask(self, images: Pixels, run: Callable[[npt.NDArray[Any]], Array]) -> Array:
        self._check(images)
        # Not every runtime can be asked for nothing, but how wide the answer would be it can tell.
        x = images if len(images) else np.zeros((1, *images.shape[1:]), np.uint8)
        try:
            return run(x if self.description.input == "uint8" else normalize(x, self.description.preprocessing))[
                : len(images)
            ]
        except GhostNetsError:
            raise
        except Exception as error:  # each runtime has classes of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ArtefactError(
                f"{self.path} fails with images of {images.shape} in {self.runtime} ({reason}); try another size, or"
                " export the network again."
            ) from error

    def _check(self, images: Pixels) -> None:
        preprocessing = self.description.preprocessing
        size, channels = preprocessing.image_size, preprocessing.channels
        is_any = self.description.any_size
        is_right = images.ndim == 4 and images.dtype == np.uint8 and images.shape[3] == channels
        if not is_right or not (min(images.shape[1:3]) >= 1 if is_any else images.shape[1:3] == (size, size)):
            wanted = f"(N, H, W, {channels})" if is_any else f"(N, {size}, {size}, {channels})"
            raise ConfigurationError(f"the images are {images.dtype} {images.shape}; {self.path} takes uint8 {wanted}.")


def normalize(images: Pixels, preprocessing: Preprocessing) -> Array:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W), contiguous: (pixel / 255 - mean) / std."""
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    mean, std = (
        np.array(values, np.float32)[:, None, None] * 255 for values in (preprocessing.mean, preprocessing.std)
    )
    x -= mean
    x /= std
    return x
