"""Orientation of an image from its metadata, which may be damaged: EXIF first, then XMP."""

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

__all__ = [
    "exif_orientation",
    "info_orientation",
    "raw_profile_orientation",
    "rotate_upright",
    "upright_size",
    "xmp_orientation",
]

ORIENTATION = 0x0112
MAX_TAGS = 1000
HEADERS = re.compile(rb"(?:Exif\0\0)*")  # some writers repeat the header
XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
BYTE, SHORT = 1, 3

# EXIF 2.32, table 4.6.4 A
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation, 1 to 8, in the first directory of EXIF data; None if it has none or is damaged."""
    if header := HEADERS.match(exif):
        exif = exif[header.end() :] if header.end() else exif
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (offset,) = struct.unpack_from(order + "I", exif, 4)
    if offset + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, offset)
    tags = exif[offset + 2 : offset + 2 + 12 * min(count, MAX_TAGS)]
    for tag, kind, _, value in struct.iter_unpack(order + "HHI4s", tags[: len(tags) // 12 * 12]):
        if tag == ORIENTATION:
            size = {BYTE: "B", SHORT: "H"}.get(kind, "I")
            (orientation,) = struct.unpack_from(order + size, value)
            return orientation if 1 <= orientation <= 8 else None
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation, 1 to 8, in an XMP packet, or None."""
    match = XMP.search(xmp)
    return int(match[1]) if match else None


def raw_profile_orientation(profile: bytes) -> int | None:
    """Return the orientation in the EXIF data that ImageMagick writes into PNG text as hexadecimal digits, or None."""
    try:
        return exif_orientation(bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii")))
    except ValueError:  # not hexadecimal, so the profile is damaged
        return None


def info_orientation(info: Mapping[Any, Any]) -> int | None:
    """Return the orientation in the ``info`` of a PIL image, or None."""
    exif = info.get("exif")
    found = exif_orientation(exif) if isinstance(exif, bytes) else None
    profile = info.get("Raw profile type exif")
    if found is None and isinstance(profile, str):
        found = raw_profile_orientation(profile.encode("latin-1", "replace"))
    for key in ("xmp", "XML:com.adobe.xmp"):
        xmp = info.get(key)
        if found is None and isinstance(xmp, bytes | str):
            found = xmp_orientation(xmp.encode() if isinstance(xmp, str) else xmp)
    return found


def rotate_upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Apply an EXIF orientation; 1 and None return the image itself."""
    transposition = TRANSPOSITIONS.get(orientation or 1)
    return image if transposition is None else image.transpose(transposition)


def upright_size(size: tuple[int, int], orientation: int | None) -> tuple[int, int]:
    """Width and height of an image after ``rotate_upright``, from those before it."""
    return size[::-1] if (orientation or 1) >= 5 else size
