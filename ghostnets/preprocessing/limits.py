"""Limits of the pixels of an image and of the memory that decoding takes, checked before it begins."""

import math
from typing import Any

from PIL import Image

from ghostnets.errors import ImageError

__all__ = ["MAX_PIXELS", "check_memory", "check_size", "decoding_memory", "memory_limit", "too_large"]

MAX_PIXELS = 100_000_000
"""Default limit of an image's pixels, 10,000 x 10,000; a file of a few kB can claim any size."""
MAX_MEMORY = 300_000_000  # bytes while an image is decoded, for up to MAX_PIXELS pixels; above in proportion
MAX_SIDE = 65_535  # as in JPEG; Pillow stores a pointer per row, so tall images take more memory than their pixels

STORED = {
    "1": 1,
    "L": 1,
    "P": 1,
    "I;16": 2,
    "I;16B": 2,
    "I;16L": 2,
    "I;16N": 2,
}  # bytes per pixel in Pillow; others 4
DECODER = {"WEBP": 16, "AVIF": 6, "HEIF": 6}  # additional bytes per pixel inside the decoder, measured
COEFFICIENT = 2  # bytes of each coefficient that a progressive JPEG keeps


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageError for more pixels than ``max_pixels``, or a side above ``MAX_SIDE``."""
    width, height = size
    if width * height > max_pixels:
        raise ImageError(too_large(name, width * height, max_pixels))
    if max(size) > MAX_SIDE:
        raise ImageError(f"{name} has {width} x {height} pixels, the longest side is {MAX_SIDE}; crop or remove it.")


def too_large(name: str, pixels: int, limit: int) -> str:
    """Message for an image of too many pixels."""
    number = f"{pixels / 1e6:.0f} million" if pixels >= 1_000_000 else f"{pixels:,}"
    allowed = f"{limit / 1e6:g} million" if limit >= 1_000_000 else f"{limit:,}"
    return (
        f"{name} has {number} pixels, the limit is {allowed};"
        " scale it down, remove it, or raise the limit (--max-pixels)."
    )


def decoding_memory(
    image: Image.Image, size: tuple[int, int], full_size: tuple[int, int], *, result_bytes: int, is_turned: bool
) -> int:
    """Bytes that decoding an opened image takes.

    Args:
        image: Image that is opened and not loaded.
        size: Size at which it will be decoded.
        full_size: Size in the file.
        result_bytes: Bytes per pixel of a converted copy; 0 if no copy is made.
        is_turned: Whether a rotated copy is made.
    """
    stored = STORED.get(image.mode, 4)
    pixels = size[0] * size[1]
    needed = pixels * (stored + result_bytes + DECODER.get(image.format or "", 0))
    needed += pixels * (result_bytes or stored) * is_turned
    if image.info.get("progressive"):
        needed += int(full_size[0] * full_size[1] * COEFFICIENT * _samples(image))
    return needed


def memory_limit(max_pixels: int) -> float:
    """Bytes that decoding may take where an image may have ``max_pixels`` pixels."""
    return MAX_MEMORY * max(1.0, max_pixels / MAX_PIXELS)


def check_memory(needed: int, image: Image.Image, full_size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageError if decoding takes more than ``memory_limit``.

    Args:
        needed: Bytes that decoding takes.
        image: The opened image, for the message.
        full_size: Size in the file.
        name: Name of the image in error messages.
        max_pixels: Limit of the caller.
    """
    limit = memory_limit(max_pixels)
    if needed > limit:
        enough = math.ceil(needed / MAX_MEMORY * MAX_PIXELS / 1e6) * 1_000_000
        raise ImageError(
            f"{name} takes {needed / 1e6:.0f} MB to decode ({image.format}, {full_size[0]} x {full_size[1]},"
            f" {image.mode}), the limit is {limit / 1e6:.0f} MB; scale it down, or allow it with --max-pixels {enough}."
        )


def _samples(image: Any) -> float:
    """Samples of a pixel of a JPEG file: 3, or 1.5 with chroma of half the width and height."""
    layers = [(layer[1], layer[2]) for layer in getattr(image, "layer", ())] or [(1, 1)] * 3
    horizontal, vertical = (max(layer[axis] for layer in layers) for axis in (0, 1))
    return sum(h * v for h, v in layers) / (horizontal * vertical)
