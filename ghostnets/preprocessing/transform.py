"""Evaluation preprocessing as a value that belongs to the weights: resize, crop or pad, normalize."""

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing.decoding import (
    MAX_PIXELS,
    RESAMPLING,
    ImageSource,
    Pixels,
    as_array,
    decode,
    decode_sized,
    resize,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FITS", "FittedImage", "Preprocessing"]

# ImageNet statistics, which published weights expect; the means over channels serve grayscale images.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRAY_MEAN, GRAY_STD = (0.449,), (0.226,)
MAX_SIZE = 4096  # side of the images of a network; larger ones take minutes and gigabytes
REDUCED_SIDE = 2  # shorter side of a JPEG decoded at reduced scale, at least, in units of resize_to (docs/predict.md)
FITS = ("crop", "stretch", "letterbox")
"""Ways to fit an image to the input: cropped, stretched, or padded to its shape."""
PADDING = 114  # gray that pads a letterboxed image, the usual value for detectors


class FittedImage(NamedTuple):
    """Image preprocessed for a network, and the size of the original."""

    pixels: Pixels  # uint8 (image_size, image_size, C)
    size: tuple[int, int]  # width and height of the upright image in pixels, as stored


@dataclass(frozen=True)
class Preprocessing:
    """Image -> network input at evaluation: resize, crop or pad to a square, normalize.

    Attributes:
        image_size: Side of the square input in pixels.
        resize_to: Shorter side before the crop in pixels, at least ``image_size``, at most 4096.
        mean, std: One value per channel, for pixels in [0, 1]; their length, 1 or 3, is the number of channels.
        interpolation: ``"bilinear"`` or ``"bicubic"`` resizing, antialiased. Networks trained with this package use
            bilinear; some published weights expect bicubic.
        fit: How the image becomes a square. ``"crop"``: the shorter side is resized and the center is cropped.
            ``"stretch"``: both sides are resized to ``image_size``. ``"letterbox"``: the longer side is resized to
            ``image_size``, and gray is padded at the right or at the bottom.
        max_pixels: Maximum number of pixels of an image that is read. A limit of the machine, which is not stored with
            the weights.

    Raises:
        ConfigurationError: A value is out of range.
    """

    image_size: int
    resize_to: int
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    interpolation: str = "bilinear"
    fit: str = "crop"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize_to <= MAX_SIZE:
            raise ConfigurationError(
                f"image_size is {self.image_size} and resize_to {self.resize_to};"
                f" they must be from 1 to {MAX_SIZE}, and resize_to not below image_size."
            )
        values = (*self.mean, *self.std)
        has_channels = len(self.mean) == len(self.std) and len(self.mean) in (1, 3)
        if not has_channels or not all(map(math.isfinite, values)) or min(self.std) <= 0:
            raise ConfigurationError(
                f"mean is {self.mean} and std {self.std}; they must have 1 or 3 finite values each, those of std above"
                " 0."
            )
        if self.interpolation not in RESAMPLING:
            raise ConfigurationError(f"interpolation is {self.interpolation!r}; it must be {' or '.join(RESAMPLING)}.")
        if self.fit not in FITS:
            raise ConfigurationError(f"fit is {self.fit!r}; it must be one of {', '.join(FITS)}.")
        if self.fit != "crop" and self.resize_to != self.image_size:
            raise ConfigurationError(
                f"resize_to is {self.resize_to} and image_size {self.image_size}; they must be equal for fit"
                f" {self.fit!r}, which crops nothing."
            )
        if type(self.max_pixels) is not int or self.max_pixels < 1:
            raise ConfigurationError(f"max_pixels is {self.max_pixels}; it must be a whole number, at least 1.")

    @classmethod
    def standard(cls, image_size: int, channels: int) -> "Preprocessing":
        """The usual choice: resize to 8/7 of the input size (256 for 224), without a crop up to 64 pixels."""
        resize_to = image_size if image_size <= 64 else round(image_size * 8 / 7)
        mean, std = (GRAY_MEAN, GRAY_STD) if channels == 1 else (RGB_MEAN, RGB_STD)
        return cls(image_size, resize_to, mean, std)

    @classmethod
    def for_boxes(cls, image_size: int, *, fit: str = "stretch") -> "Preprocessing":
        """The usual choice for detectors, which see the whole image: RGB, ImageNet's mean and deviation, no crop."""
        return cls(image_size, image_size, fit=fit)

    def with_image_size(self, image_size: int) -> "Preprocessing":
        """Return this preprocessing for another input size, with the same crop ratio."""
        resize_to = round(image_size * self.resize_to / self.image_size)
        return replace(self, image_size=image_size, resize_to=resize_to)

    def as_grayscale(self) -> "Preprocessing":
        """Return this preprocessing for grayscale images, normalised by the average mean and standard deviation."""
        return replace(self, mean=(sum(self.mean) / len(self.mean),), std=(sum(self.std) / len(self.std),))

    @property
    def channels(self) -> int:
        """1 for grayscale, 3 for RGB."""
        return len(self.mean)

    def read(self, image: ImageSource) -> "Tensor":
        """Read an image for training or evaluation, decoded at full scale and not cropped yet.

        Returns:
            uint8 (C, H, W) with a shorter side of ``resize_to``, or the square if nothing is cropped.

        Raises:
            ImageError: The image cannot be read, as ``decode``.
        """
        import torch

        resized = self._resize(decode(image, max_pixels=self.max_pixels))
        return torch.from_numpy(np.ascontiguousarray(as_array(resized).transpose(2, 0, 1)))

    def center(self, image: "Tensor") -> "Tensor":
        """Crop (..., C, H, W) with a shorter side of ``resize_to`` to (..., C, image_size, image_size)."""
        left, top, right, bottom = self._center(image.shape[-1], image.shape[-2])
        return image[..., top:bottom, left:right]

    def pixels(self, image: ImageSource, *, name: str | None = None) -> Pixels:
        """Read an image for inference, resized and cropped, without torch.

        The result equals ``center(read(image))``, except for large JPEG files: those are decoded at the smallest of
        the scales 1/1, 1/2, 1/4 and 1/8 that leaves a shorter side of at least ``REDUCED_SIDE * resize_to``.

        Args:
            image: Image that ``decode`` accepts.
            name: Name of the image in error messages, as in ``decode``.

        Returns:
            uint8 (image_size, image_size, C).

        Raises:
            ImageError: The image cannot be read, as ``decode``.
        """
        if self.fit != "crop":
            return self.fitted(image, name=name).pixels
        min_side = REDUCED_SIDE * self.resize_to
        decoded = decode(image, name=name, min_side=min_side, max_pixels=self.max_pixels)
        resized = self._resize(decoded)
        return as_array(resized.crop(self._center(*resized.size)))

    def fitted(self, image: ImageSource, *, name: str | None = None) -> FittedImage:
        """Read an image for a network whose output has positions in it, decoded at full scale, without torch.

        The size is that of the original also of a JPEG so large that it is decoded at reduced scale (``decode``).

        Args:
            image: Image that ``decode`` accepts.
            name: Name of the image in error messages, as in ``decode``.

        Raises:
            ImageError: The image cannot be read, as ``decode``.
            ConfigurationError: ``fit`` is ``"crop"``, which does not show the network the whole image.
        """
        if self.fit == "crop":
            raise ConfigurationError("fit is 'crop', which loses a part of the image; choose stretch or letterbox.")
        decoded = decode_sized(image, name=name, max_pixels=self.max_pixels)
        return FittedImage(as_array(self._resize(decoded.image, decoded.size)), decoded.size)

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Factors by which x and y in the square become x and y in an image of ``size``, its width and height."""
        width, height = size
        if self.fit == "letterbox":
            inside = _letterboxed(size, self.image_size)
            return width / inside[0], height / inside[1]
        return width / self.image_size, height / self.image_size

    def normalize(self, images: "Tensor") -> "Tensor":
        """Normalize uint8 (N, C, H, W) to float32 in channels_last layout: (pixel / 255 - mean) / std."""
        import torch

        mean, std = (torch.tensor(v, device=images.device)[:, None, None] * 255 for v in (self.mean, self.std))
        return (images.float() - mean).div_(std).contiguous(memory_format=torch.channels_last)

    def _resize(self, image: Image.Image, original: tuple[int, int] | None = None) -> Image.Image:
        if self.fit != "crop":
            image = resize(image, channels=self.channels)
            square = (self.image_size, self.image_size)
            size = square if self.fit == "stretch" else _letterboxed(original or image.size, self.image_size)
            image = image if image.size == size else image.resize(size, RESAMPLING[self.interpolation])
            if size == square:
                return image
            canvas = Image.new(image.mode, square, (PADDING,) * self.channels if self.channels == 3 else PADDING)
            canvas.paste(image)
            return canvas
        return resize(image, channels=self.channels, shorter_side=self.resize_to, interpolation=self.interpolation)

    def _center(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop, rounded as in ``torchvision.transforms.CenterCrop``."""
        left, top = (round((side - self.image_size) / 2) for side in (width, height))
        return left, top, left + self.image_size, top + self.image_size

    def to_dict(self) -> dict[str, Any]:
        """The attributes that are stored with weights by name, ready for JSON."""
        values = {name: value for name, value in asdict(self).items() if name != "max_pixels"}
        if self.fit == "crop":  # omitted, so that the files of classifiers do not change
            del values["fit"]
        return values

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocessing":
        """Parse the result of ``to_dict``, from JSON that may be damaged.

        Raises:
            ConfigurationError: A value is missing, or out of its range.
        """
        try:
            return cls(
                int(values["image_size"]),
                int(values["resize_to"]),
                tuple(map(float, values["mean"])),
                tuple(map(float, values["std"])),
                values.get("interpolation", "bilinear"),  # missing in checkpoints of version 0.1.0
                values.get("fit", "crop"),
            )
        except ConfigurationError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigurationError(f"the preprocessing {values!r} cannot be used ({reason}).") from error


def _letterboxed(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height, at least 1 pixel, of an image whose longer side is resized to ``side``."""
    longer = max(size)
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))
