"""Image classification with any network: a path, bytes, an array or a PIL image -> classes with probabilities."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.batches import compute_in_batches, path_of
from ghostnets.artefacts.model import Model, Outputs
from ghostnets.artefacts.runtimes import open_model
from ghostnets.artefacts.scores import Array, probabilities_of, top_k
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import MAX_PIXELS, ImageSource, Pixels

__all__ = [
    "BATCH_SIZE",
    "LABEL_THRESHOLD",
    "NONE_OF_THESE",
    "Classifier",
    "Prediction",
    "check_threshold",
    "load_classifier",
]

BATCH_SIZE = 16
NONE_OF_THESE = "none of these"
"""Answer where no class reaches the threshold."""
LABEL_THRESHOLD = 0.5
"""Threshold of a network for several labels, unless another is given."""

ImageList = list[Any] | tuple[Any, ...]  # of ImageSource


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Attributes:
        path: Name of the image: its path, or "" for an image in memory.
        classes: Class names, most probable first.
        probabilities: Probabilities of ``classes``; those of all classes of the network sum to 1.
        error: Reason why there is no prediction, in which case ``classes`` and ``probabilities`` are empty; else None.
        features: Float32 (F,), the input of the last linear layer, or None where it was not requested.
        answer: With a threshold, the first of ``classes`` if its probability reaches it, else ``NONE_OF_THESE``; None
            without a threshold, or for an image that cannot be read. For a multi-label network, all ``labels``.
        labels: For a multi-label network, all classes whose probability reaches the threshold, most probable first;
            else None, also for an image that cannot be read.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    answer: str | None = None
    labels: tuple[str, ...] | None = None


class Classifier:
    """A network that classifies images.

    Example::

        classifier = load_classifier("runs/photos-ghostnet_100/best.safetensors")
        print(classifier("photo.jpg").classes[0])

    Args:
        model: An opened model, or the path of a file that ``open_model`` takes.
        flip: Average the probabilities of each image and its horizontal flip (test-time augmentation); takes twice the
            time.
        threshold: Lowest probability of the first class, in (0, 1], for which it is the answer; of a multi-label
            network the lowest probability of each label, by default 0.5.
        max_pixels: Maximum number of pixels of an image that is read.

    Attributes:
        model: The opened model.
        preprocessing: Preprocessing of its images, with this limit.

    Raises:
        ConfigurationError: ``threshold`` is out of range.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        flip: bool = False,
        threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_threshold(threshold)
        self.model = model if isinstance(model, Model) else open_model(model)
        self.model.require_task("classify")
        if threshold is None and self.model.description.multi_label:
            threshold = LABEL_THRESHOLD
        self.flip, self.threshold = flip, threshold
        self.preprocessing = replace(self.model.description.preprocessing, max_pixels=max_pixels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return self.model.description.class_names

    def copy(self) -> "Classifier":
        """Return a classifier for concurrent use (see ``Model.copy``)."""
        return Classifier(
            self.model.copy(),
            flip=self.flip,
            threshold=self.threshold,
            max_pixels=self.preprocessing.max_pixels,
        )

    @overload
    def __call__(self, images: ImageList, *, top: int = 5, features: bool = False) -> list[Prediction]: ...
    @overload
    def __call__(self, images: ImageSource, *, top: int = 5, features: bool = False) -> Prediction: ...
    def __call__(
        self, images: ImageSource | ImageList, *, top: int = 5, features: bool = False
    ) -> Prediction | list[Prediction]:
        """Classify an image, or each image of a list.

        All kinds of images are read by the rules of ``preprocessing.decode``: upright as EXIF says, transparency on
        white, 8 of 16 bits. A large JPEG is decoded at reduced scale if it is given as a file, not if it is decoded
        already.

        Args:
            images: Path of an image file; its content as bytes or a stream; a PIL image; an array, uint8 or uint16,
                (H, W) or (H, W, C); or a list of these.
            top: Number of most probable classes.
            features: Return the features of each image as well.

        Returns:
            A prediction, or a list of them for a list.

        Raises:
            ImageError: An image cannot be read.
            ConfigurationError: An image is of another type, ``top`` is below 1, or the file has no features.
            ArtefactError: The runtime fails.
        """
        if top < 1:
            raise ConfigurationError(f"top is {top}; it must be at least 1.")
        if not isinstance(images, list | tuple):
            return self.predict(self.read(images)[None], [path_of(images)], top=top, features=features)[0]
        return compute_in_batches(
            images,
            lambda image, name: self.read(image, name=name),
            lambda pixels, paths: self.predict(np.stack(pixels), paths, top=top, features=features),
            batch_size=BATCH_SIZE,
        )

    def read(self, image: ImageSource, *, name: str | None = None) -> Pixels:
        """Read an image and preprocess it for the network (see ``Preprocessing.pixels``)."""
        return self.preprocessing.pixels(image, name=name)

    def run(self, pixels: Pixels, *, features: bool = False) -> Outputs:
        """Run the network like ``Model.run``, but return probabilities as scores in any case.

        They are calibrated if the file has a temperature, and averaged over both flips if ``flip`` is set; features are
        those of the images as they are.
        """
        scores, embeddings = self._probabilities(pixels, features)
        if self.flip:
            flipped, _ = self._probabilities(np.ascontiguousarray(pixels[:, :, ::-1]), False)
            scores = (scores + flipped) * np.float32(0.5)
        return Outputs(scores, embeddings)

    def _probabilities(self, pixels: Pixels, features: bool) -> Outputs:
        outputs, description = self.model.run(pixels, features=features), self.model.description
        if description.output == "probabilities":
            return outputs
        scores = probabilities_of(
            outputs.scores, multi_label=description.multi_label, temperature=description.temperature
        )
        return Outputs(scores, outputs.features)

    def predict(self, pixels: Pixels, names: Sequence[str], *, top: int, features: bool = False) -> list[Prediction]:
        """Return the predictions for a batch of images that ``read`` returned, uint8 (N, S, S, C).

        Args:
            pixels: The images.
            names: Value of ``Prediction.path`` for each.
            top: Number of most probable classes.
            features: Return the features as well.
        """
        outputs = self.run(pixels, features=features)
        indices, values = top_k(outputs.scores, top)
        embeddings: Iterator[npt.NDArray[np.float32] | None]
        embeddings = iter([None] * len(names) if outputs.features is None else outputs.features)
        return [
            Prediction(
                name,
                tuple(self.class_names[i] for i in row),
                tuple(probabilities),
                None,
                embedding,
                *self.answer(scores),
            )
            for name, row, probabilities, embedding, scores in zip(
                names, indices.tolist(), values.tolist(), embeddings, outputs.scores, strict=True
            )
        ]

    def answer(self, probabilities: Array) -> tuple[str | None, tuple[str, ...] | None]:
        """``Prediction.answer`` and ``Prediction.labels`` of an image, whose probabilities are float32 (classes,)."""
        if self.threshold is None:
            return None, None
        multi_label = self.model.description.multi_label
        (indices,), (values,) = top_k(probabilities[None], len(self.class_names) if multi_label else 1)
        labels = tuple(self.class_names[i] for i, value in zip(indices, values, strict=True) if value >= self.threshold)
        return "; ".join(labels) or NONE_OF_THESE, labels if multi_label else None


def load_classifier(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str = "cpu",
    precision: str | None = None,
    flip: bool = False,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Classifier:
    """Open a checkpoint or an exported file for classification.

    Args:
        path: The file, as for ``open_model``.
        threads: Number of threads, as for ``open_model``.
        device: Device, as for ``open_model``.
        precision: Precision, as for ``open_model``.
        flip: Average over both flips, as for ``Classifier``.
        threshold: Lowest probability of an answer or label, as for ``Classifier``.
        max_pixels: Maximum number of pixels of an image that is read.

    Raises:
        GhostNetsError: See ``open_model`` and ``Classifier``.
    """
    check_threshold(threshold)
    model = open_model(path, threads=threads, device=device, precision=precision)
    return Classifier(model, flip=flip, threshold=threshold, max_pixels=max_pixels)


def check_threshold(threshold: float | None) -> None:
    """Raise ConfigurationError unless a threshold is a probability above 0, or None."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigurationError(f"the threshold is {threshold}; it must be a probability above 0 and at most 1.")
