"""Conversion of decoded images to 8-bit "L" or "RGB": bit depth by the file's tags, transparency on white."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from ghostnets.errors import ImageError

__all__ = ["GRAY_MODES", "convert_to_8_bit", "converted_bytes"]

STRIP_ROWS = 256
GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
TRANSPARENT_MODES = frozenset({"RGBA", "LA", "PA", "RGBa"})
TWELVE_BITS = 4095

# TIFF tags
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE_VALUE, SAMPLE_FORMAT = 258, 262, 281, 339
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2


def convert_to_8_bit(image: Image.Image, name: str, significant_bits: int | None = None) -> Image.Image:
    """Convert a loaded image to "L" or "RGB".

    Args:
        image: Image of any mode of PIL, with the ``info`` and TIFF tags of its file.
        name: Name of the image in error messages.
        significant_bits: Significant bits of 16-bit grayscale samples as in the sBIT chunk of PNG, or None.

    Raises:
        ImageError: The range of the values is unknown: floating-point, negative or large integers.
    """
    if image.mode.startswith("I"):
        return _convert_integers(image, name, significant_bits)
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels, whose range is unknown; save it with 8 or 16 bits.")
    if image.mode in ("RGB", "RGBA") and _tagged_maximum(image) is not None:
        raise ImageError(
            f"{name} has colors of fewer than 16 bits stored in 16, of which only the upper 8 can be read; scale them"
            " to the full range."
        )
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None  # None only for conversion in place
        return converted
    if image.mode == "La":  # alpha premultiplied
        image = image.convert("LA")
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        return _composite_on_white(image)
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in GRAY_MODES else "RGB")


def converted_bytes(image: Image.Image) -> int:
    """Bytes a pixel of the copies that ``convert_to_8_bit`` makes; 0 if it makes none."""
    if image.mode.startswith("I"):
        return 5  # the values limited to their range, and the result
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return 0
    return 1 if image.mode in GRAY_MODES else 4


def _composite_on_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    flat = Image.new("L" if image.mode in GRAY_MODES else "RGB", image.size)
    for top in range(0, image.height, STRIP_ROWS):  # layers of a whole large image would take five times its memory
        layer = image.crop((0, top, image.width, min(top + STRIP_ROWS, image.height)))
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # color of 16 bits, decoded to 8
            layer.info["transparency"] = tuple(value >> 8 for value in key)
        layer = layer.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        flat.paste(Image.alpha_composite(white, layer).convert(flat.mode), (0, top))
    return flat


def _convert_integers(image: Image.Image, name: str, significant_bits: int | None) -> Image.Image:
    """Convert 16- and 32-bit grayscale; PIL's own conversion clips instead of scaling."""
    values = np.asarray(image)
    if values.min() < 0:
        raise ImageError(f"{name} has negative pixels, whose range is unknown; save it with 8 or 16 bits, unsigned.")
    maximum = _integer_maximum(image, values, name, significant_bits)
    levels = np.arange(maximum + 1, dtype=np.int64)
    table = (levels >> 8 if maximum == 65535 else (levels * 255 + maximum // 2) // maximum).astype(np.uint8)
    if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:  # PIL inverts 8 bits, but not 16
        table = 255 - table
    pixels = table[np.minimum(values, maximum)]
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels[values == key] = 255
    return Image.fromarray(pixels)


def _integer_maximum(image: Image.Image, values: npt.NDArray[Any], name: str, significant_bits: int | None) -> int:
    """Value of white: by the tags where they state it, otherwise the full range of the type."""
    tagged = _tagged_maximum(image)
    if tagged is not None:
        return tagged
    largest = int(values.max())
    bits = _tag(image, BITS_PER_SAMPLE)
    if bits == 12:
        return TWELVE_BITS
    if bits == 16 and _tag(image, SAMPLE_FORMAT) == SIGNED:
        return 32767
    if image.mode == "I" and image.format != "PNG" and bits != 16:  # 32 bits, or in memory: no range is usual
        if largest > 65535:
            raise ImageError(
                f"{name} has 32-bit pixels up to {largest}, whose range is unknown; save it with 8 or 16 bits."
            )
        return 255 if largest <= 255 else 65535
    if significant_bits and 8 <= significant_bits < 16 and largest < 1 << significant_bits:
        low = (1 << (16 - significant_bits)) - 1
        if (values & low).any():  # scaled to 16 bits, as PNG prescribes, so dark an image has zeros here
            return (1 << significant_bits) - 1
    if 0 < largest <= TWELVE_BITS:
        warnings.warn(
            f"a 16-bit image has no value above {TWELVE_BITS} of 65535, and is read as nearly black; if it holds 12"
            f" bits, scale it, or save it as TIFF with MaxSampleValue {TWELVE_BITS}.",
            stacklevel=2,
        )
    return 65535


def _tagged_maximum(image: Image.Image) -> int | None:
    """MaxSampleValue of a 16-bit TIFF file if it states a number of bits, 9 to 15.

    Some writers store the largest value of the image in this tag, which must not change its brightness.
    """
    maximum = _tag(image, MAX_SAMPLE_VALUE)
    if _tag(image, BITS_PER_SAMPLE) != 16 or maximum is None or not 511 <= maximum < 65535:
        return None
    return maximum if (maximum & (maximum + 1)) == 0 and _tag(image, SAMPLE_FORMAT) in (None, UNSIGNED) else None


def _tag(image: Image.Image, tag: int) -> int | None:
    """First value of an integer TIFF tag, or None."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
