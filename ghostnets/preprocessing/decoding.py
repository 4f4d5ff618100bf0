"""Image decoding: files, bytes, arrays and PIL images of every common kind -> 8-bit pixels, safe for hostile files.

Importable without torch.
"""

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, features

from ghostnets.errors import ConfigurationError, ImageError, MissingExtraError, require
from ghostnets.preprocessing.containers import strip_metadata
from ghostnets.preprocessing.content import detect_format, read_content
from ghostnets.preprocessing.depth import GRAY_MODES, convert_to_8_bit, converted_bytes
from ghostnets.preprocessing.limits import MAX_PIXELS, check_memory, check_size, decoding_memory, memory_limit
from ghostnets.preprocessing.orientation import info_orientation, rotate_upright, upright_size
from ghostnets.preprocessing.pnm import decode_pnm, read_pnm_header

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RESAMPLING",
    "DecodedImage",
    "ImageHeader",
    "ImageSource",
    "Pixels",
    "as_array",
    "decode",
    "decode_sized",
    "decode_values",
    "is_grey",
    "limit_elongation",
    "middle_of",
    "read_header",
    "read_image",
    "resize",
]

Pixels = npt.NDArray[np.uint8]
"""Pixels of an image: uint8, (height, width, channels)."""
ImageSource = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | Image.Image
"""An image: a path, the content of a file, an open file, pixels, or an image of Pillow."""

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of image files, in lower case."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "AVIF", "HEIC", "PNM")  # Pillow runs programs for some others
MAX_ELONGATION = 4  # longer side : shorter side
SCALES = (1, 2, 4, 8)  # divisors at which libjpeg decodes a fraction of the frequencies
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Antialiased interpolations of Pillow, by name."""


def read_image(
    image: ImageSource, *, channels: int, shorter_side: int | None = None, interpolation: str = "bilinear"
) -> "Tensor":
    """Read an image as a tensor.

    Args:
        image: Image that ``decode`` accepts.
        channels: 3 for RGB, 1 for grayscale; the image is converted where it is of the other kind.
        shorter_side: Shorter side after resizing in pixels; None keeps the size.
        interpolation: Interpolation of the resizing, a key of ``RESAMPLING``.

    Returns:
        uint8 (channels, H, W), rotated as EXIF says.

    Raises:
        ImageError: The image cannot be read, as ``decode``.
    """
    import torch

    resized = resize(decode(image), channels=channels, shorter_side=shorter_side, interpolation=interpolation)
    return torch.from_numpy(np.ascontiguousarray(as_array(resized).transpose(2, 0, 1)))


class DecodedImage(NamedTuple):
    """A decoded image, and the size (W, H) of the upright original, which is larger if a JPEG was decoded reduced."""

    image: Image.Image
    size: tuple[int, int]


def decode(
    image: ImageSource, *, name: str | None = None, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image to 8-bit "L" or "RGB": upright as EXIF says, transparency on white, first frame of an animation.

    Args:
        image: Path of a JPEG, PNG, GIF, BMP, TIFF, WebP or PNM file; its content, as bytes or a seekable stream; a PIL
            image; or an array, uint8 or uint16, (H, W) or (H, W, C) with 1 (grayscale), 3 (RGB) or 4 (RGBA) channels.
            16-bit values keep their upper 8 bits.
        name: Name of the image in error messages; by default the path.
        min_side: Decode a JPEG file at 1/2, 1/4 or 1/8 of its size, by leaving out high frequencies of its cosine
            transform, as long as the shorter side keeps this many pixels. The result differs slightly from that of the
            full decoding, and takes a fraction of the time.
        max_pixels: Maximum number of pixels; larger files are rejected from their header, and those that take more than
            300 MB to decode (above 100 million pixels in proportion). A JPEG file that would take more is decoded at
            the first of 1/2, 1/4 and 1/8 of its size that does not.

    Raises:
        ImageError: The image is missing, empty, no image, truncated, or larger than ``max_pixels`` or ``MAX_SIDE``.
        ConfigurationError: ``image`` is of another type.
    """
    return decode_sized(image, name=name, min_side=min_side, max_pixels=max_pixels).image


def decode_sized(
    image: ImageSource, *, name: str | None = None, min_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """Decode an image, as ``decode``, and return the size of the upright original with it.

    Positions in an image, such as boxes, are in pixels of the original, also where it was decoded at reduced scale.
    """
    name = name or (os.fspath(image) if isinstance(image, str | os.PathLike) else "the image")
    if isinstance(image, np.ndarray):
        image = _from_array(image, name)
    elif not isinstance(image, str | os.PathLike | bytes | bytearray | Image.Image) and not hasattr(image, "read"):
        raise ConfigurationError(
            f"an image is given as {type(image).__name__}; give a path, the bytes of a file, a numpy array or a PIL"
            " image."
        )
    try:
        if isinstance(image, Image.Image):
            check_size(image.size, name, max_pixels)
            image.load()
            upright = rotate_upright(convert_to_8_bit(image, name), info_orientation(image.info))
            return DecodedImage(upright, upright.size)
        return _decode_content(read_content(image), name, min_side, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {name}.") from error
    except MemoryError as error:
        raise ImageError(f"{name} does not fit into memory; scale it down.") from error
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, struct.error, IndexError, ...
        reason = (str(error) or "it is damaged").splitlines()[0]
        raise ImageError(f"{name} cannot be read as an image ({reason}); repair or remove it.") from error


def decode_values(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file whose values are labels, not brightness: they are kept as stored, of any mode of PIL.

    Args:
        path: Path of the file.
        max_pixels: Largest number of pixels.

    Returns:
        The image, upright; palette indices stay indices (mode "P"), and transparency is left as it is.

    Raises:
        ImageError: The image cannot be read, as ``decode``.
    """
    name = os.fspath(path)
    try:
        return _decode_content(read_content(path), name, None, max_pixels, converts=False).image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {name}.") from error
    except Exception as error:  # as in decode
        reason = (str(error) or "it is damaged").splitlines()[0]
        raise ImageError(f"{name} cannot be read as an image ({reason}); repair or remove it.") from error


def _decode_content(
    content: bytes, name: str, min_side: int | None, max_pixels: int, *, converts: bool = True
) -> DecodedImage:
    kind = _identify(content, name)
    if kind == "PNM":
        check_size(read_pnm_header(content)[:2], name, max_pixels)
        image = Image.fromarray(decode_pnm(content))
        return DecodedImage(image, image.size)
    stripped = strip_metadata(content, kind)
    del content
    with _open(stripped.content, kind) as opened:
        full_size = opened.size
        check_size(full_size, name, max_pixels)
        is_turned = (stripped.orientation or info_orientation(opened.info)) not in (None, 1)
        copied = converted_bytes(opened)

        def memory(scale: int) -> int:
            size = (-(-full_size[0] // scale), -(-full_size[1] // scale))
            return decoding_memory(opened, size, full_size, result_bytes=copied, is_turned=is_turned)

        scale = 1
        if kind == "JPEG":
            scale = _choose_scale(min(full_size), min_side, lambda scale: memory(scale) <= memory_limit(max_pixels))
            opened.draft(None, (full_size[0] // scale, full_size[1] // scale))
        check_memory(memory(scale), opened, full_size, name, max_pixels)
        opened.load()
        orientation = stripped.orientation or info_orientation(opened.info)
        image = convert_to_8_bit(opened, name, stripped.significant_bits) if converts else opened.copy()
        upright = rotate_upright(image, orientation)
        return DecodedImage(upright, upright.size if scale == 1 else upright_size(full_size, orientation))


def _choose_scale(side: int, min_side: int | None, fits: Callable[[int], bool]) -> int:
    """Divisor of the size at which a JPEG is decoded: 1, 2, 4 or 8.

    Args:
        side: Shorter side of the file in pixels.
        min_side: Pixels of the shorter side that are enough; None takes all.
        fits: Whether decoding at a divisor stays within the limit of memory.
    """
    enough = [scale for scale in SCALES if scale == 1 or (min_side is not None and side // min_side >= scale)]
    return next((scale for scale in SCALES[enough[-1].bit_length() - 1 :] if fits(scale)), SCALES[-1])


def _open(content: bytes, kind: str) -> ImageFile.ImageFile:
    """Open a file by the decoder of its format, without the limit of pixels of ``Image.open``."""
    if kind not in Image.OPEN:
        Image.preinit()  # the common formats
    if kind not in Image.OPEN:
        Image.init()  # all others: forty modules
    factory, _ = Image.OPEN[kind]
    return factory(io.BytesIO(content), "")


def _identify(content: bytes, name: str) -> str:
    """Format of a file, with the library that decodes it loaded."""
    if not content:
        raise ValueError("the file is empty")
    kind = detect_format(content)
    if kind is None:
        raise ValueError(f"it is none of {', '.join(FORMATS)}, or damaged")
    if kind == "AVIF" and not features.check("avif"):
        raise ValueError("it is AVIF, which this build of Pillow does not read; install Pillow 11.3 or newer")
    if kind == "HEIF":
        try:
            require("pillow_heif", extra="heic").register_heif_opener()
        except MissingExtraError as error:
            raise ImageError(f"{name} is a HEIC image: {error}") from error
    return kind


def resize(
    image: Image.Image, *, channels: int, shorter_side: int | None = None, interpolation: str = "bilinear"
) -> Image.Image:
    """Convert a decoded image to "L" (one channel) or "RGB" (three), and resize it to ``shorter_side`` if given.

    An image more elongated than 4 : 1 is first cropped to its middle: 1 x 10,000 pixels would otherwise grow to a
    gigabyte.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode and mode == "L":
        image = image.convert(mode)
    if shorter_side is not None:
        image = limit_elongation(image)
        width, height = image.size
        # The longer side is rounded down, as in torchvision.transforms.Resize.
        longer_side = shorter_side * max(width, height) // min(width, height)
        size = (shorter_side, longer_side) if width <= height else (longer_side, shorter_side)
        if size != image.size:
            image = image.resize(size, RESAMPLING[interpolation])
    return image if image.mode == mode else image.convert(mode)  # gray is expanded last: the same pixels, less memory


def middle_of(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what ``resize`` keeps: the middle of an image more elongated than 4 : 1."""
    width, height = size
    longest = MAX_ELONGATION * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return left, top, min(width, left + longest), min(height, top + longest)


def limit_elongation(image: Image.Image) -> Image.Image:
    """Crop an image more elongated than 4 : 1 to its middle."""
    left, top, right, bottom = middle_of(image.size)
    if (right - left, bottom - top) == image.size:
        return image
    return Image.fromarray(np.asarray(image)[top:bottom, left:right])  # crop has a limit of pixels


def as_array(image: Image.Image) -> Pixels:
    """Convert an "L" or "RGB" image to uint8 (H, W, C)."""
    pixels = np.array(image)  # (H, W) or (H, W, 3)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


class ImageHeader(NamedTuple):
    """Format, size in pixels (W, H) and mode of an image file, as stored; its EXIF orientation, 1 for none."""

    format: str
    size: tuple[int, int]
    mode: str
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Size (W, H) after ``decode``, which rotates the image as EXIF says."""
        return upright_size(self.size, self.orientation)


def read_header(image: str | os.PathLike[str] | bytes, *, name: str | None = None) -> ImageHeader:
    """Read the header of an image file.

    Args:
        image: Path of the file, or its content.
        name: Name of the image in error messages; by default the path.

    Raises:
        ImageError: The file cannot be read as an image.
    """
    name = name or ("the image" if isinstance(image, bytes) else os.fspath(image))
    try:
        content = read_content(image)
        kind = _identify(content, name)
        if kind == "PNM":
            width, height, channels, *_ = read_pnm_header(content)
            return ImageHeader(kind, (width, height), "L" if channels == 1 else "RGB")
        stripped = strip_metadata(content, kind)
        with _open(stripped.content, kind) as opened:
            orientation = stripped.orientation or info_orientation(opened.info) or 1
            return ImageHeader(kind, opened.size, opened.mode, orientation)
    except ImageError:
        raise
    except Exception as error:  # as in decode
        raise ImageError(f"{name} cannot be read as an image.") from error


def is_grey(image: str | os.PathLike[str] | bytes, *, name: str | None = None) -> tuple[bool, int]:
    """Whether a file holds a grayscale image, and its shorter side in pixels, from its header (``read_header``)."""
    header = read_header(image, name=name)
    return header.mode in GRAY_MODES, min(header.size)


def _from_array(pixels: npt.NDArray[Any], name: str) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not fits or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise ImageError(
            f"{name} is an array {pixels.dtype} {pixels.shape}; give uint8 or uint16, (H, W) or (H, W, C) with 1, 3 or"
            " 4 channels, and several images as a list."
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))
