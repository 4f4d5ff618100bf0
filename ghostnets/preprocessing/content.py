"""Content and format of an image file, read with a size limit before any decoder runs."""

import os
import stat
from typing import Any

__all__ = ["MAX_BYTES", "detect_format", "read_content"]

MAX_BYTES = 1 << 30  # a single image of 100 million pixels with four 16-bit channels takes 0.8 GB without compression
STREAM_BLOCK = 1 << 22

SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II\x2a\0", "TIFF"),
    (b"MM\0\x2a", "TIFF"),
    (b"II\x2b\0", "TIFF"),  # BigTIFF
    (b"MM\0\x2b", "TIFF"),
    (b"P1", "PNM"),
    (b"P2", "PNM"),
    (b"P3", "PNM"),
    (b"P4", "PNM"),
    (b"P5", "PNM"),
    (b"P6", "PNM"),
)
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
MAX_BRANDS_BYTES = 256


def read_content(source: Any) -> bytes:
    """Read a regular file, or a stream from its start.

    Args:
        source: Path, bytes or binary stream.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The path is a pipe or device, which may never end, or the content exceeds ``MAX_BYTES``.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        with open(source, "rb", opener=_open_nonblocking) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is a pipe, socket or device, not a regular file; pass its content as a stream")
            _check_bytes(status.st_size)
            return stream.read(status.st_size)
    if hasattr(source, "seekable") and source.seekable():
        source.seek(0)
    blocks, size = [], 0
    while block := source.read(STREAM_BLOCK):
        if not isinstance(block, bytes):
            raise ValueError(f"its stream returns {type(block).__name__}, not bytes; open it in binary mode")
        blocks.append(block)
        size += len(block)
        _check_bytes(size)
    return b"".join(blocks)


def detect_format(content: bytes) -> str | None:
    """Detect the format from the first bytes: JPEG, PNG, GIF, BMP, TIFF, WEBP, AVIF, HEIF or PNM; None if unknown."""
    for signature, name in SIGNATURES:
        if content.startswith(signature):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        end = min(int.from_bytes(content[:4], "big"), MAX_BRANDS_BYTES)
        brands = {content[8:12], *(content[start : start + 4] for start in range(16, end, 4))}
        if brands & AVIF_BRANDS:
            return "AVIF"
        if brands & HEIF_BRANDS:
            return "HEIF"
    return None


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe without a writer would block


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"it has {size / 1e6:.0f} MB, the limit is {MAX_BYTES / 1e6:.0f} MB")
