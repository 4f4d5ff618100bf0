"""Images that are not files of their own: members of a tar. Importing this module loads no torch."""

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from ghostnets.preprocessing import Preprocessing, decode, is_grey

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImagePath", "StoredImage", "decode_image", "inspect_image", "read_image"]


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


def read_image(image: ImagePath, preprocessing: Preprocessing) -> "Tensor":
    """As ``Preprocessing.read``."""
    return preprocessing.read(image if isinstance(image, Path) else decode_image(image))


def decode_image(image: ImagePath) -> Image.Image:
    """As ``decode``."""
    return decode(image) if isinstance(image, Path) else decode(io.BytesIO(image.read_bytes()), name=str(image))


def inspect_image(image: ImagePath) -> tuple[bool, int]:
    """As ``is_grey``."""
    return is_grey(image) if isinstance(image, Path) else is_grey(image.read_bytes(), name=str(image))
