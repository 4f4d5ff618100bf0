"""What happens to pixels before the network sees them, the same each time; it belongs to the weights."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.preprocessing.decoding import MAX_PIXELS, RESAMPLING, Pixels, Source, as_array, decode, resize

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Preprocessing"]

# The statistics of ImageNet that published weights expect; their means serve grey images.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
REDUCED_SIDE = 2  # of a JPEG decoded at reduced scale, in units of resize_to (docs/predict.md)


@dataclass(frozen=True)
class Preprocessing:
    """Image -> network input at evaluation: resize the shorter side, cut the centre square, normalise.

    Attributes:
        image_size: Side of the square input in pixels.
        resize_to: Shorter side before the cut, at least ``image_size``.
        mean, std: One value a channel, of pixels in [0, 1]; their length is the number of channels, 1 or 3.
        interpolation: ``"bilinear"`` or ``"bicubic"``, of the resizing, always antialiased. What is trained here uses
            the former; some published weights go with the latter.
    """

    image_size: int
    resize_to: int
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize_to:
            raise ConfigurationError(
                f"image_size is {self.image_size} and resize_to {self.resize_to};"
                " they must be at least 1, and resize_to not below image_size."
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise ConfigurationError(
                f"mean is {self.mean} and std {self.std}; they must have 1 or 3 values each, those of std above 0."
            )
        if self.interpolation not in RESAMPLING:
            raise ConfigurationError(f"interpolation is {self.interpolation!r}; it must be {' or '.join(RESAMPLING)}.")

    @classmethod
    def standard(cls, image_size: int, channels: int) -> "Preprocessing":
        """The usual choice: shorter side 8 / 7 of the input (256 for 224), for up to 64 pixels the input itself."""
        resize_to = image_size if image_size <= 64 else round(image_size * 8 / 7)
        mean, std = (GREY_MEAN, GREY_STD) if channels == 1 else (RGB_MEAN, RGB_STD)
        return cls(image_size, resize_to, mean, std)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def read(self, image: Source | Image.Image) -> "Tensor":
        """An image file, or a decoded image -> uint8 (C, H, W) with a shorter side of ``resize_to``.

        Raises:
            ImageError: As ``read_image``.
        """
        import torch

        resized = self._resize(image if isinstance(image, Image.Image) else decode(image))
        return torch.from_numpy(np.ascontiguousarray(as_array(resized).transpose(2, 0, 1)))

    def center(self, image: "Tensor") -> "Tensor":
        """uint8 (..., C, H, W) with a shorter side of ``resize_to`` -> its centre, (..., C, image_size, image_size)."""
        left, top, right, bottom = self._center(image.shape[-1], image.shape[-2])
        return image[..., top:bottom, left:right]

    def pixels(self, image: Source | Image.Image, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
        """An image file, or a decoded image -> its centre, uint8 (image_size, image_size, C). Loads no torch.

        What ``center(read(image))`` gives, but that a large JPEG is decoded at reduced scale: at the smallest of 1/1,
        1/2, 1/4 and 1/8 whose shorter side is at least ``REDUCED_SIDE`` times ``resize_to``.

        Args:
            image: Path, stream of bytes, or decoded image.
            name: As ``decode``.
            max_pixels: As ``decode``.

        Raises:
            ImageError: As ``read_image``.
        """
        if not isinstance(image, Image.Image):
            image = decode(image, name=name, enough=REDUCED_SIDE * self.resize_to, max_pixels=max_pixels)
        resized = self._resize(image)
        return as_array(resized.crop(self._center(*resized.size)))

    def normalize(self, images: "Tensor") -> "Tensor":
        """uint8 (N, C, H, W) -> float32 in channels_last layout, (pixel / 255 - mean) / std."""
        import torch

        mean, std = (torch.tensor(v, device=images.device)[:, None, None] * 255 for v in (self.mean, self.std))
        return (images.float() - mean).div_(std).contiguous(memory_format=torch.channels_last)

    def _resize(self, image: Image.Image) -> Image.Image:
        return resize(image, channels=self.channels, shorter_side=self.resize_to, interpolation=self.interpolation)

    def _center(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the cut, rounded as ``torchvision.transforms.CenterCrop`` does."""
        left, top = (round((side - self.image_size) / 2) for side in (width, height))
        return left, top, left + self.image_size, top + self.image_size

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Raises CheckpointError where ``values`` does not come from ``to_dict``."""
        try:
            return cls(
                int(values["image_size"]),
                int(values["resize_to"]),
                tuple(values["mean"]),
                tuple(values["std"]),
                values.get("interpolation", "bilinear"),  # checkpoints of version 0.1.0 had no other
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint describes no usable preprocessing ({error}).") from error
