"""Image files without the metadata that pixels do not need, so that no decoder reads it: PNG, JPEG, GIF.

Damaged or oversized metadata (EXIF, XMP, text, ICC profiles, thumbnails, later frames) is dropped before decoding. The
orientation and the significant bits are read from it, with bounds. Colors are taken as sRGB; ICC profiles are not used.
"""

import re
import struct
import zlib
from dataclasses import dataclass

from ghostnets.preprocessing.orientation import exif_orientation, raw_profile_orientation, xmp_orientation
from ghostnets.preprocessing.tiff import strip_tiff

__all__ = ["MAX_BLOCKS", "MAX_SCANS", "StrippedImage", "strip_metadata"]

MAX_BLOCKS = 50_000  # chunks of PNG, segments of JPEG, blocks of GIF; 400 MB of PNG in chunks of 8 kB
MAX_SCANS = 100  # per progressive JPEG; each scan passes over the whole image, and encoders write about ten
MAX_RLE_BYTES = 2_000_000  # per run-length coded BMP, which Pillow decodes in Python
MAX_METADATA = 1 << 20  # bytes of text or EXIF searched for the orientation

IEND = b"\0\0\0\0IEND\xaeB`\x82"
RAW_PROFILES = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
JPEG_SCAN_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # without restart markers
SOI, EOI, SOS, APP0, APP1, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
TABLES = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xE0)})  # frames, Huffman and quantization tables, intervals
STANDALONE = frozenset({0x01, *range(0xD0, 0xDA)})
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


@dataclass(frozen=True)
class StrippedImage:
    """An image file without metadata.

    Attributes:
        content: The file that remains.
        orientation: EXIF orientation, 1 to 8, or None where none can be read here.
        significant_bits: Bits of a grayscale PNG's samples as in its sBIT chunk, or None.
    """

    content: bytes
    orientation: int | None = None
    significant_bits: int | None = None


def strip_metadata(content: bytes, file_format: str) -> StrippedImage:
    """Remove the metadata from a file.

    Args:
        content: The file.
        file_format: Its format, as ``detect_format`` returns it; formats other than PNG, JPEG, GIF and TIFF are
            unchanged, since their decoders do not interpret metadata.

    Raises:
        ValueError: The file exceeds a bound, and states which.
    """
    if file_format == "BMP" and content[30:34] in (b"\1\0\0\0", b"\2\0\0\0") and len(content) > MAX_RLE_BYTES:
        raise ValueError(f"it is a run-length coded BMP of more than {MAX_RLE_BYTES} bytes; save it as PNG")
    if file_format == "TIFF":
        return StrippedImage(strip_tiff(content))
    strip = {"PNG": _strip_png, "JPEG": _strip_jpeg, "GIF": _strip_gif}.get(file_format)
    return strip(content) if strip else StrippedImage(content)


def _strip_png(content: bytes) -> StrippedImage:
    view = memoryview(content)
    pieces: list[bytes | memoryview] = [view[:8]]
    kept: dict[bytes, bytes] = {}  # first chunk of each critical kind, without the pixels
    hints: dict[str, int] = {}
    position, in_pixels, has_pixels = 8, False, False
    for _ in range(MAX_BLOCKS):
        if position + 12 > len(content):
            break
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        in_pixels = kind == b"IDAT"
        if in_pixels:
            has_pixels = True
            pieces.append(view[position:end])
            if end > len(content):
                return StrippedImage(b"".join(pieces), **hints)  # truncated: rejected by the decoder
        elif kind == b"IEND" or end > len(content):
            break
        elif kind in (b"IHDR", b"PLTE", b"tRNS") and kind not in kept and not has_pixels:
            kept[kind] = content[position:end]
            pieces.append(_scale_key(kept) if kind == b"tRNS" else kept[kind])
        elif kind == b"sBIT" and length == 1:
            hints["significant_bits"] = content[position + 8]
        elif "orientation" not in hints and (found := _png_orientation(kind, view[position + 8 : end - 4])):
            hints["orientation"] = found
        position = end
    else:
        if in_pixels or not has_pixels:
            raise ValueError(f"it has more than {MAX_BLOCKS} chunks")
    pieces.append(IEND)
    if sum(map(len, pieces)) == len(content) and b"tRNS" not in kept:  # nothing to remove: spare the copy
        return StrippedImage(content, **hints)
    return StrippedImage(b"".join(pieces), **hints)


def _scale_key(chunks: dict[bytes, bytes]) -> bytes:
    """The tRNS chunk with its transparent gray or color at the depth that Pillow decodes to."""
    header, chunk = chunks.get(b"IHDR", b""), chunks[b"tRNS"]
    if len(header) < 25 or (len(chunk) - 12) % 2:
        return chunk
    depth, color = header[16], header[17]
    values = struct.unpack(f">{(len(chunk) - 12) // 2}H", chunk[8:-4])
    if color == 0 and depth in (2, 4):
        values = tuple((value & ((1 << depth) - 1)) * (255 // ((1 << depth) - 1)) for value in values)
    elif color == 2 and depth == 16:
        values = tuple(value >> 8 for value in values)
    else:
        return chunk
    body = b"tRNS" + struct.pack(f">{len(values)}H", *values)
    return chunk[:4] + body + struct.pack(">I", zlib.crc32(body))


def _png_orientation(kind: bytes, data: memoryview) -> int | None:
    if kind == b"eXIf":
        return exif_orientation(bytes(data[:MAX_METADATA]))
    if kind == b"iTXt" and bytes(data[:18]) == b"XML:com.adobe.xmp\0":
        return xmp_orientation(bytes(data[:MAX_METADATA]))
    if kind in (b"tEXt", b"zTXt") and bytes(data[:22]) in RAW_PROFILES:
        profile = bytes(data[22:MAX_METADATA])
        if kind == b"zTXt":
            try:
                profile = zlib.decompressobj().decompress(profile[1:], MAX_METADATA)
            except zlib.error:  # damaged metadata, which pixels do not need
                return None
        return raw_profile_orientation(profile)
    return None


def _strip_jpeg(content: bytes) -> StrippedImage:
    view = memoryview(content)
    pieces, position = [view[:2]], 2
    orientation = from_xmp = None
    is_progressive = False
    for _ in range(MAX_BLOCKS):
        match = JPEG_MARKER.search(content, position)
        if match is None:
            raise ValueError("it has no pixels")
        start, position = match.span()
        marker = content[start + 1]
        if marker == SOS:
            if is_progressive and content.count(b"\xff\xda", start) > MAX_SCANS:
                _check_scans(content, start)
            pieces.append(view[start:])
            is_whole = sum(map(len, pieces)) == len(content)  # nothing to remove: spare the copy
            return StrippedImage(content if is_whole else b"".join(pieces), orientation or from_xmp)
        if marker in STANDALONE:
            continue
        data = position + 2
        position += max(2, int.from_bytes(content[position:data], "big"))
        if marker in TABLES:
            is_progressive = is_progressive or marker in PROGRESSIVE
            pieces.append(view[start:position])
        elif marker == APP1:
            if content.startswith(b"Exif\0\0", data):
                orientation = orientation or exif_orientation(content[data:position])
            elif content.startswith(b"http://ns.adobe.com/xap/1.0/\0", data):
                from_xmp = from_xmp or xmp_orientation(content[data:position])
        elif (marker == APP0 and content.startswith(b"JFIF\0", data)) or (
            marker == APP14 and content.startswith(b"Adobe", data)
        ):
            pieces.append(view[start:position])  # these define the coding of channels
    raise ValueError(f"it has more than {MAX_BLOCKS} segments before its pixels")


def _check_scans(content: bytes, position: int) -> None:
    scans = 0
    while match := JPEG_SCAN_MARKER.search(content, position):
        marker, position = match[1][0], match.end()
        if marker == EOI:
            return
        scans += marker == SOS
        if scans > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans")
        if marker != SOI:
            position += int.from_bytes(content[position : position + 2], "big")


def _strip_gif(content: bytes) -> StrippedImage:
    flags = content[10] if len(content) > 10 else 0
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    pieces = [content[:position]]
    blocks = 0
    while position < len(content) and content[position] != 0x3B:
        if content[position] == 0x2C:  # first image; Pillow reads no further than its end
            return StrippedImage(b"".join([*pieces, content[position:]]))
        start, is_extension = position, content[position] == 0x21
        position += 2 if is_extension else 1
        while is_extension and position < len(content) and content[position]:
            position += content[position] + 1
            blocks += 1
            if blocks > MAX_BLOCKS:
                break
        position += is_extension
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise ValueError(f"it has more than {MAX_BLOCKS} blocks before its pixels")
        if content[start : start + 2] == b"\x21\xf9":  # graphic control: the transparent index
            pieces[1:] = [content[start:position]]
    raise ValueError("it has no pixels")
