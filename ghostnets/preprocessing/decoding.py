"""One image file -> pixels: right for the kinds of files that people have, safe for those they should not have.

Importing this file loads no torch, nor does anything in it that does not return a tensor.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ghostnets.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RESAMPLING",
    "Pixels",
    "Source",
    "as_array",
    "decode",
    "is_grey",
    "read_image",
    "resize",
]

Pixels = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | BinaryIO

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's; to read some others it starts programs
MAX_PIXELS = 100_000_000  # 10,000 x 10,000: 300 MB once decoded; a file of a few kB can claim any size
STRIP = 256  # rows
MAX_SIDE = 65_535  # as in JPEG; Pillow keeps an address for each row, so high images take more than their pixels
MAX_ELONGATION = 4  # longer side : shorter side
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # antialiased

GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"})
TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


def read_image(
    path: Source, *, channels: int, shorter_side: int | None = None, interpolation: str = "bilinear"
) -> "Tensor":
    """Reads an image file.

    Args:
        path: JPEG, PNG, GIF, BMP, TIFF, WebP or PNM.
        channels: 3 for RGB, 1 for grey; files of the other kind are converted.
        shorter_side: Resize to this shorter side in pixels, keeping the shape.
        interpolation: Of the resizing, a key of ``RESAMPLING``.

    Returns:
        uint8 (channels, H, W), rotated as EXIF says.

    Raises:
        ImageError: The file is missing, empty, no image, truncated, or larger than ``MAX_PIXELS`` or ``MAX_SIDE``.
    """
    import torch

    image = resize(decode(path), channels=channels, shorter_side=shorter_side, interpolation=interpolation)
    return torch.from_numpy(np.ascontiguousarray(as_array(image).transpose(2, 0, 1)))


def decode(
    source: Source, *, name: str | None = None, enough: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Reads an image file as 8-bit "L" or "RGB": upright, transparent pixels on white, first frame of an animation.

    Args:
        source: Path, or the bytes of a file as a seekable stream.
        name: What the errors call it; by default the path.
        enough: A JPEG may be decoded at a half, a quarter or an eighth of its size, by leaving out high frequencies of
            its cosine transform, as long as the shorter side keeps so many pixels. What comes out then differs a
            little from the full decoding, and takes a fraction of the time.
        max_pixels: A larger image is refused from its header.

    Raises:
        ImageError: As ``read_image``.
    """
    name = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "the image")
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(_too_large(name, image.width * image.height, max_pixels))
            if max(image.size) > MAX_SIDE:
                sides = f"{image.width} x {image.height}"
                raise ImageError(f"{name} has {sides} pixels, the longest side is {MAX_SIDE}; cut or remove it.")
            if enough is not None:
                image.draft(None, (enough, enough))  # nothing happens but with JPEG
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        return _to_8_bit(image, name)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {name}.") from error
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))  # PIL refuses to open it, and names the size in its message alone
        raise ImageError(_too_large(name, int(number[0]) if number else MAX_PIXELS + 1, max_pixels)) from error
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory; scale it down.") from error
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, struct.error, IndexError, ...
        reason = (str(error) or "it is damaged").splitlines()[0]
        if _is_empty(source):
            reason = "the file is empty"
        elif isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}, or damaged"
        raise ImageError(f"{name} cannot be read as an image ({reason}); repair or remove it.") from error


def resize(
    image: Image.Image, *, channels: int, shorter_side: int | None = None, interpolation: str = "bilinear"
) -> Image.Image:
    """A decoded image -> "L" for one channel or "RGB" for three, resized to ``shorter_side`` where given.

    An image more elongated than 4 : 1 is first cut to its middle, since a line of one pixel by ten thousand would
    otherwise grow to a gigabyte.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if shorter_side is not None:
        width, height = image.size
        most = MAX_ELONGATION * min(width, height)
        if max(width, height) > most:
            left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
            image = image.crop((left, top, left + min(width, most), top + min(height, most)))
            width, height = image.size
        # The longer side is rounded down, as torchvision.transforms.Resize does.
        longer_side = shorter_side * max(width, height) // min(width, height)
        size = (shorter_side, longer_side) if width <= height else (longer_side, shorter_side)
        if size != image.size:
            image = image.resize(size, RESAMPLING[interpolation])
    return image


def as_array(image: Image.Image) -> Pixels:
    """An "L" or "RGB" image -> uint8 (H, W, C)."""
    pixels = np.array(image)  # (H, W) or (H, W, 3)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def is_grey(path: str | os.PathLike[str]) -> tuple[bool, int]:
    """Whether a file holds a grey image, and its shorter side in pixels, from the header alone.

    Raises:
        ImageError: The file cannot be read as an image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in GREY_MODES, min(image.size)
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} cannot be read as an image.") from error


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        flat = Image.new("L" if image.mode in GREY_MODES else "RGB", image.size)
        for top in range(0, image.height, STRIP):  # whole layers of a large image would take five times its memory
            layer = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            flat.paste(Image.alpha_composite(white, layer).convert(flat.mode), (0, top))
        return flat
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion would clip instead of scaling
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels, whose range is unknown; save it with 8 or 16 bits.")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in GREY_MODES else "RGB")


def _is_empty(source: Source) -> bool:
    if isinstance(source, str | os.PathLike):
        return Path(source).is_file() and Path(source).stat().st_size == 0
    return source.seek(0, os.SEEK_END) == 0


def _too_large(name: str, pixels: int, limit: int) -> str:
    return (
        f"{name} has {pixels / 1e6:.0f} million pixels, the limit is {limit / 1e6:g} million;"
        " scale it down or remove it."
    )
