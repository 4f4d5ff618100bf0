"""One contract for every runtime: pixels in; scores and features, or predictions for places in the image, out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.description import TASKS, Description
from ghostnets.artefacts.scores import Array
from ghostnets.errors import ArtefactError, ConfigurationError, GhostNetsError
from ghostnets.preprocessing import Pixels, Preprocessing

__all__ = ["Model", "Outputs", "normalize"]


class Outputs(NamedTuple):
    """Outputs of a network for a batch.

    Attributes:
        scores: Float32 (N, classes), logits or probabilities.
        features: Float32 (N, features), the input of the last linear layer: an embedding of each image. None where
            they were not requested.
    """

    scores: Array
    features: Array | None


class Model(ABC):
    """A network in a file, opened by ``open_model`` in the runtime of the file's format.

    ``run`` may be called from several threads. Calls run concurrently in ONNX Runtime, ncnn and torch; the engine,
    OpenVINO, ExecuTorch, LiteRT and MNN serialize them.

    Attributes:
        path: The file.
        description: Description of the network, read from the file.
        runtime: Name and version of the runtime: ``"onnxruntime 1.32.0"``.
        note: What was measured to choose the precision, in a sentence; empty if it was not chosen by measurement.
    """

    note = ""

    def __init__(self, path: Path, description: Description, runtime: str) -> None:
        self.path, self.description, self.runtime = path, description, runtime

    def run(self, pixels: Pixels, *, features: bool = False) -> Outputs:
        """Run the network once. Normalization is applied here where the file does not contain it.

        Args:
            pixels: Images, resized and cropped: uint8 (N, H, W, C), RGB or grayscale, any N; H and W are the
                ``image_size`` of the description's preprocessing, unless ``description.any_size``.
            features: Return the features as well. A checkpoint always has them, an exported file if it was exported
                with them.

        Returns:
            Scores as ``description.output`` says, logits or probabilities, and the features.

        Raises:
            ConfigurationError: ``pixels`` has another shape or type, or the file has no features.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        self.require_task("classify")
        if features:
            self.require_features()
        outputs = self._checked_run(pixels, features)
        if outputs[0].shape[1:] != (len(self.description.class_names),):
            raise ArtefactError(
                f"{self.path} returns scores of shape {outputs[0].shape[1:]} per image, but names"
                f" {len(self.description.class_names)} classes; export the network again."
            )
        self._check_scores(outputs[0])
        return Outputs(outputs[0], outputs[1] if features else None)

    def predictions(self, pixels: Pixels) -> Array:
        """Run a detector once.

        Args:
            pixels: Images as for ``run``, square.

        Returns:
            Float32 (N, P, classes + 4 * bins): for each point of the levels at ``description.strides``, row by row, the
            class logits, then the logits of ``bins`` distances to the left, top, right and bottom side.

        Raises:
            ConfigurationError: ``pixels`` has another shape or type, or the network is not a detector.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        self.require_task("detect")
        outputs, description = self._checked_run(pixels, False), self.description
        side, values = pixels.shape[1], len(description.class_names) + 4 * description.bins
        sides = [-(-side // stride) for stride in description.strides]
        if pixels.shape[1] != pixels.shape[2]:
            raise ConfigurationError(f"the images are {pixels.shape}; a detector's images are square.")
        if [output.shape[1:] for output in outputs] == [(values, size, size) for size in sides]:
            outputs = [np.concatenate([o.reshape(*o.shape[:2], -1) for o in outputs], 2).transpose(0, 2, 1)]
        wanted = (sum(size * size for size in sides), values)
        if len(outputs) != 1 or outputs[0].shape[1:] != wanted:
            raise ArtefactError(
                f"{self.path} returns {', '.join(str(output.shape[1:]) for output in outputs)[:200]} per image, but its"
                f" description says {wanted}, or one map for each of {len(sides)} levels; export the network again."
            )
        if not np.isfinite(outputs[0]).all():
            raise ArtefactError(f"{self.path} returns predictions that are not finite; its weights are damaged.")
        return outputs[0]

    def class_maps(self, pixels: Pixels) -> Array:
        """Run a segmentation network once.

        Args:
            pixels: Images as for ``run``.

        Returns:
            Logits of each pixel, float32 (N, classes, H, W).

        Raises:
            ConfigurationError: ``pixels`` has another shape or type, or the network is not for segmentation.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        self.require_task("segment")
        outputs = self._checked_run(pixels, False)
        wanted = (len(self.description.class_names), *pixels.shape[1:3])
        if len(outputs) != 1 or outputs[0].shape[1:] != wanted:
            raise ArtefactError(
                f"{self.path} returns {', '.join(str(output.shape[1:]) for output in outputs)[:200]} per image, but its"
                f" description says {wanted}; export the network again."
            )
        if not np.isfinite(outputs[0]).all():
            raise ArtefactError(f"{self.path} returns logits that are not finite; its weights are damaged.")
        return outputs[0]

    def scores(self, pixels: Pixels) -> Array:
        """Run the network for its task: the scores of ``run``, ``predictions`` or ``class_maps``."""
        if self.description.task == "detect":
            return self.predictions(pixels)
        if self.description.task == "segment":
            return self.class_maps(pixels)
        return self.run(pixels).scores

    def require_task(self, task: str) -> None:
        """Raise ConfigurationError unless the network is for a task, one of ``TASKS``."""
        if self.description.task != task:
            own, loader = TASKS[self.description.task]
            raise ConfigurationError(
                f"{self.path} is {own} ({self.description.architecture}), and {TASKS[task].network} is needed here; use"
                f" it with ghostnets predict, or in Python with ghostnets.artefacts.{loader}."
            )

    def _checked_run(self, pixels: Pixels, features: bool) -> list[Array]:
        """Run the network on checked images and return its outputs, one row for each image."""
        self._check(pixels)
        # Not every runtime takes an empty batch; one image gives the shapes of the outputs.
        x: npt.NDArray[Any] = pixels if len(pixels) else np.zeros((1, *pixels.shape[1:]), np.uint8)
        try:
            if self.description.input == "float32":
                x = normalize(x, self.description.preprocessing)
            return [output[: len(pixels)] for output in self._run_batches(x, features)]
        except GhostNetsError:
            raise
        except Exception as error:  # each runtime has its own exception classes
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ArtefactError(
                f"{self.path} fails with images of {pixels.shape} in {self.runtime} ({reason}); try another size, or"
                " export the network again."
            ) from error

    def _run_batches(self, x: npt.NDArray[Any], features: bool) -> Sequence[Array]:
        """Run the network on batches of the size that the file takes; the last one is filled with its last image."""
        size = self.description.batch
        if size is None:
            return self._run(x, features)
        batches = []
        for start in range(0, len(x), size):
            indices = np.arange(start, start + size).clip(max=len(x) - 1)
            batches.append(self._run(x[indices], features))
        return [np.concatenate(outputs)[: len(x)] for outputs in zip(*batches, strict=True)]

    def _check_scores(self, scores: Array) -> None:
        """Raise ArtefactError for scores that are not finite, or that are labelled as probabilities but are not."""
        if not np.isfinite(scores).all():
            raise ArtefactError(f"{self.path} returns scores that are not finite; its weights are damaged.")
        if self.description.output == "probabilities":
            if self.description.multi_label:
                if (scores < -1e-3).any() or (scores > 1 + 1e-3).any():
                    raise ArtefactError(
                        f"the scores of {self.path} are not probabilities, as its description claims (from"
                        f" {scores.min():.3g} to {scores.max():.3g}); export the network again."
                    )
                return
            sums = scores.sum(1)
            if (scores < -1e-3).any() or (np.abs(sums - 1) > 0.02).any():
                raise ArtefactError(
                    f"the scores of {self.path} are not probabilities, as its description claims (a row sums to"
                    f" {sums[np.abs(sums - 1).argmax()]:.3g}); export the network again."
                )

    def require_features(self) -> None:
        """Raise ConfigurationError if the file has no features."""
        if not self.description.has_features:
            raise ConfigurationError(
                f"{self.path} gives no features; export it with --features, or use the checkpoint itself."
            )

    def copy(self) -> "Model":
        """Return a model for concurrent use: this one, if its runtime runs calls concurrently.

        Raises:
            GhostNetsError: The file must be read again and cannot be, as in ``open_model``.
        """
        return self

    @abstractmethod
    def _run(self, x: npt.NDArray[Any], features: bool) -> Sequence[Array]:
        """Run the network on images in the input format of the file: ``description.batch``, or at least one.

        Returns:
            Scores, and features if requested, N rows each; features that come at no cost may always be returned.
        """

    def _check(self, pixels: Pixels) -> None:
        size, channels = self.description.preprocessing.image_size, self.description.preprocessing.channels
        is_any = self.description.any_size
        fits = pixels.ndim == 4 and pixels.dtype == np.uint8 and pixels.shape[3] == channels
        if not fits or not (min(pixels.shape[1:3]) >= 1 if is_any else pixels.shape[1:3] == (size, size)):
            wanted = f"(N, H, W, {channels})" if is_any else f"(N, {size}, {size}, {channels})"
            raise ConfigurationError(f"the images are {pixels.dtype} {pixels.shape}; {self.path} takes uint8 {wanted}.")


def normalize(pixels: Pixels, preprocessing: Preprocessing) -> Array:
    """Normalize uint8 (N, H, W, C) to contiguous float32 (N, C, H, W): (pixel / 255 - mean) / std."""
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    statistics = preprocessing.mean, preprocessing.std
    mean, std = (np.array(values, np.float32)[:, None, None] * 255 for values in statistics)
    x -= mean
    x /= std
    return x
