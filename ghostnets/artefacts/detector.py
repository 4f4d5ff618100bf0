"""Object detection in any runtime: a path, bytes, an array or a PIL image -> boxes with classes and scores."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from ghostnets.artefacts.batches import compute_in_batches, path_of
from ghostnets.artefacts.boxes import MAX_BOXES, MAX_IOU, MIN_SCORE, decode_predictions, suppress
from ghostnets.artefacts.classifier import BATCH_SIZE, ImageList, check_threshold
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.runtimes import open_model
from ghostnets.artefacts.scores import Array
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import MAX_PIXELS, FittedImage, ImageSource

__all__ = ["DetectedObjects", "ObjectDetector", "load_detector"]


@dataclass(frozen=True)
class DetectedObjects:
    """Objects found in one image, highest score first.

    Attributes:
        path: Path of the image, or "" for an image in memory.
        size: Width and height of the upright image in pixels; (0, 0) if it cannot be read.
        boxes: Boxes, float32 (D, 4), x_min, y_min, x_max, y_max in pixels of the upright image.
        scores: Score of each object, in [0, 1].
        labels: Class index of each object.
        classes: Class name of each object.
        error: Reason why the image cannot be read, in which case there are no objects; None for a readable image.
    """

    path: str
    size: tuple[int, int] = (0, 0)
    boxes: Array = field(default_factory=lambda: np.zeros((0, 4), np.float32), compare=False)
    scores: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    error: str | None = None


class ObjectDetector:
    """Finds objects in images with a detector.

    Example::

        detector = load_detector("fish.safetensors")
        found = detector("photo.jpg")
        print(found.classes, found.scores, found.boxes)

    Args:
        model: An opened model, or the path of a file for ``open_model``.
        threshold: Score in (0, 1] that an object must exceed, 0.3 by default.
        max_iou: IoU in [0, 1] with a higher-scoring box of the same class above which a box is dropped (non-maximum
            suppression).
        max_boxes: Maximum number of objects per image; those with the highest scores are kept.
        max_pixels: Maximum number of pixels of an image that is read.

    Attributes:
        model: The opened model.
        preprocessing: Preprocessing of the model, with the limit ``max_pixels``.

    Raises:
        ConfigurationError: The network is not a detector, or a value is out of range.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        threshold: float | None = None,
        max_iou: float = MAX_IOU,
        max_boxes: int = MAX_BOXES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_threshold(threshold)
        if not 0 <= max_iou <= 1 or max_boxes < 1:
            raise ConfigurationError(
                f"max_iou is {max_iou} and max_boxes is {max_boxes}; max_iou must be from 0 to 1, max_boxes at least 1."
            )
        self.model = model if isinstance(model, Model) else open_model(model)
        self.model.require_task("detect")
        self.threshold = MIN_SCORE if threshold is None else threshold
        self.max_iou, self.max_boxes = max_iou, max_boxes
        self.preprocessing = replace(self.model.description.preprocessing, max_pixels=max_pixels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.model.description.class_names

    def copy(self) -> "ObjectDetector":
        """Return a detector for concurrent use (see ``Model.copy``)."""
        return ObjectDetector(
            self.model.copy(),
            threshold=self.threshold,
            max_iou=self.max_iou,
            max_boxes=self.max_boxes,
            max_pixels=self.preprocessing.max_pixels,
        )

    @overload
    def __call__(self, images: ImageList) -> list[DetectedObjects]: ...
    @overload
    def __call__(self, images: ImageSource) -> DetectedObjects: ...
    def __call__(self, images: ImageSource | ImageList) -> DetectedObjects | list[DetectedObjects]:
        """Find the objects in an image, or in each image of a list, which may be anything that ``Classifier`` accepts.

        Raises:
            ImageError: An image cannot be read.
            ConfigurationError: An image is of an unsupported type.
            ArtefactError: The runtime fails, or the file does not fit its description.
        """
        if not isinstance(images, list | tuple):
            return self.detect([self.read(images)], [path_of(images)])[0]
        return compute_in_batches(
            images, lambda image, name: self.read(image, name=name), self.detect, batch_size=BATCH_SIZE
        )

    def read(self, image: ImageSource, *, name: str | None = None) -> FittedImage:
        """Read an image and preprocess it for the network (see ``Preprocessing.fitted``)."""
        return self.preprocessing.fitted(image, name=name)

    def detect(self, images: Sequence[FittedImage], names: Sequence[str]) -> list[DetectedObjects]:
        """Return the objects in a batch of images that ``read`` returned.

        Args:
            images: Preprocessed images.
            names: Value of ``DetectedObjects.path`` for each image.
        """
        if not images:
            return []
        description, side = self.model.description, self.preprocessing.image_size
        predictions = self.model.predictions(np.stack([image.pixels for image in images]))
        decoded = zip(*decode_predictions(predictions, side, description.strides, bins=description.bins), strict=True)
        results = []
        for (boxes, scores), image, name in zip(decoded, images, names, strict=True):
            x, y = self.preprocessing.scale(image.size)
            limits = np.array(
                [*image.size, *image.size], np.float32
            )  # a box can extend into the padding of a letterboxed image
            upright = np.minimum(boxes * np.array([x, y, x, y], np.float32), limits)
            kept = suppress(upright, scores, min_score=self.threshold, max_iou=self.max_iou, max_boxes=self.max_boxes)
            labels = tuple(kept.labels.tolist())
            classes = tuple(self.class_names[label] for label in labels)
            results.append(DetectedObjects(name, image.size, kept.boxes, tuple(kept.scores.tolist()), labels, classes))
        return results


def load_detector(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str = "cpu",
    precision: str | None = None,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ObjectDetector:
    """Open a checkpoint or an exported file of a detector.

    Args:
        path: The file, as for ``open_model``.
        threads: Number of threads, as for ``open_model``.
        device: Device, as for ``open_model``.
        precision: Precision, as for ``open_model``.
        threshold: Score that an object must exceed, 0.3 by default.
        max_pixels: Maximum number of pixels of an image that is read.

    Raises:
        GhostNetsError: See ``open_model`` and ``ObjectDetector``.
    """
    check_threshold(threshold)
    model = open_model(path, threads=threads, device=device, precision=precision)
    return ObjectDetector(model, threshold=threshold, max_pixels=max_pixels)
