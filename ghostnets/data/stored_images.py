"""Images that are not files of their own: members of a tar. Importable without torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from ghostnets.preprocessing import MAX_PIXELS, Preprocessing, decode, is_grey

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImagePath", "StoredImage", "content_digest", "decode_image", "inspect_image", "read_stored_image"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image inside a larger file.

    Attributes:
        container: Path of that file.
        name: Name within it.
        offset: First byte.
        size: Number of bytes.
    """

    container: str
    name: str
    offset: int
    size: int

    @property
    def suffix(self) -> str:
        """Suffix of the name, as of a path."""
        return PurePosixPath(self.name).suffix

    def __str__(self) -> str:
        return f"{self.container}:{self.name}"

    def read_bytes(self) -> bytes:
        """Content of the image file; raises OSError."""
        with open(self.container, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


ImagePath = Path | StoredImage


def read_stored_image(image: ImagePath, preprocessing: Preprocessing) -> "Tensor":
    """Read a stored image as ``Preprocessing.read`` does."""
    if isinstance(image, Path):
        return preprocessing.read(image)
    return preprocessing.read(decode_image(image, max_pixels=preprocessing.max_pixels))


def decode_image(image: ImagePath, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a stored image as ``decode`` does."""
    if isinstance(image, Path):
        return decode(image, max_pixels=max_pixels)
    return decode(image.read_bytes(), name=str(image), max_pixels=max_pixels)


def inspect_image(image: ImagePath) -> tuple[bool, int]:
    """Inspect the header of a stored image as ``is_grey`` does."""
    return is_grey(image) if isinstance(image, Path) else is_grey(image.read_bytes(), name=str(image))


def content_digest(content: bytes) -> int:
    """Digest that recognises the content of an image file, or of the pixels of an image without a file: 64 bits."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
