"""From the logits of a segmentation network to a class for each pixel of the original image, without torch."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets.artefacts.scores import Array, softmax
from ghostnets.preprocessing import Pixels, class_color

__all__ = ["classify_pixels", "draw_indices"]


def classify_pixels(
    logits: Array, size: tuple[int, int], inside: tuple[int, int], *, mirrored: Array | None = None
) -> tuple[Pixels, Array]:
    """Choose the class of each pixel of an image.

    The probabilities of each class are resized bilinearly to the image, and the highest wins: of equal ones that with
    the lower index.

    Args:
        logits: float32 (classes, S, S).
        size: Width and height of the original image.
        inside: Width and height of the part of the network's input that shows the image, from its upper left corner.
        mirrored: Logits of the horizontally flipped input, (classes, S, S), to average the probabilities of both.

    Returns:
        Class of each pixel, uint8 (H, W), and its probability, float32 (H, W).
    """
    probabilities = _probabilities(logits)
    if mirrored is not None:
        probabilities = (probabilities + _probabilities(mirrored)[:, :, ::-1]) * np.float32(0.5)
    labels: Pixels = np.zeros(size[::-1], np.uint8)
    scores: npt.NDArray[np.float32] = np.full(size[::-1], -1, np.float32)
    for label, plane in enumerate(probabilities):
        own = np.ascontiguousarray(plane[: inside[1], : inside[0]], np.float32)
        resized = own if own.shape == labels.shape else _resize(own, size)
        higher = resized > scores
        labels[higher], scores[higher] = label, resized[higher]
    return labels, scores


def draw_indices(mask: Pixels, num_classes: int) -> Image.Image:
    """Return a mask, class indices of shape (H, W), as an image with the palette of the classes (``class_color``)."""
    image = Image.fromarray(mask)
    image.putpalette([value for label in range(num_classes) for value in class_color(label)])
    return image


def _probabilities(logits: Array) -> Array:
    """Softmax over the classes of each pixel, (classes, H, W)."""
    return softmax(logits.reshape(len(logits), -1).T).T.reshape(logits.shape)


def _resize(plane: Array, size: tuple[int, int]) -> Array:
    """Resize a plane bilinearly, antialiased where it gets smaller, to width and height."""
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
