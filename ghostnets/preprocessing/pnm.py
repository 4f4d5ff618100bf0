"""PBM, PGM and PPM files, text (P1 to P3) and binary (P4 to P6), of any maximum value.

Pillow decodes most of them one value at a time in Python, which takes minutes for a large file.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["decode_pnm", "read_pnm_header"]

TOKEN = re.compile(rb"(?:[ \t\n\v\f\r]|#[^\n\r]*+[\n\r])*+([0-9]{1,10})(?=[ \t\n\v\f\r#])")
SPACE = re.compile(rb"[ \t\n\v\f\r]")
COMMENT = re.compile(rb"#[^\n\r]*+")
SPACES = b" \t\n\v\f\r"
TEXT_BLOCK = 1 << 20


def read_pnm_header(content: bytes) -> tuple[int, int, int, int, int]:
    """Return width, height, channels, maximum value and offset of the pixels of a file that starts with P1 to P6.

    Raises:
        ValueError: The header is damaged.
    """
    kind = content[1] - ord("0")
    numbers, position = [], 2
    for _ in range(2 if kind in (1, 4) else 3):
        match = TOKEN.match(content, position)
        if match is None:
            raise ValueError("its header is damaged")
        numbers.append(int(match[1]))
        position = match.end()
    width, height, maximum = (*numbers, 1)[:3]
    if not (width and height and 0 < maximum < 65536):
        raise ValueError(f"its header has {width} x {height} pixels and the maximum value {maximum}")
    return width, height, 3 if kind in (3, 6) else 1, maximum, position + 1


def decode_pnm(content: bytes) -> npt.NDArray[np.uint8]:
    """Decode a file to uint8 (H, W) or (H, W, 3), its maximum value as 255.

    Raises:
        ValueError: The file is damaged or truncated.
    """
    width, height, channels, maximum, start = read_pnm_header(content)
    kind, count = content[1:2], width * height * channels
    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    if kind == b"4":
        row = -(-width // 8)
        packed = _from_buffer(content, np.dtype(np.uint8), row * height, start).reshape(height, row)
        values = 1 - np.unpackbits(packed, axis=1)[:, :width]
    elif kind in b"56":
        values = _from_buffer(content, np.dtype(np.uint8 if maximum < 256 else ">u2"), count, start)
    elif kind == b"1":
        values = _bits_from_text(content[start - 1 :], count)
    else:
        values = _numbers_from_text(content[start - 1 :], count)
        if values.max() > maximum:
            raise ValueError(f"it has the value {values.max()}, its maximum is {maximum}")
    pixels = _scale_table(maximum)[values] if maximum != 255 else values.astype(np.uint8, copy=False)
    return pixels.reshape((height, width, 3) if channels == 3 else (height, width))


def _scale_table(maximum: int) -> npt.NDArray[np.uint8]:
    """Build the lookup table from a value to 8 bits: rounded for a maximum below 256, else the upper 8 of 16 bits."""
    values = np.arange(65536 if maximum > 255 else 256, dtype=np.float64).clip(max=maximum) / maximum
    return (np.rint(values * 65535).astype(np.int64) >> 8 if maximum > 255 else np.rint(values * 255)).astype(np.uint8)


def _from_buffer(content: bytes, dtype: Any, count: int, start: int) -> npt.NDArray[Any]:
    if len(content) < start + count * dtype.itemsize:
        raise ValueError("it is truncated")
    return np.frombuffer(content, dtype, count, start)


def _bits_from_text(text: bytes, count: int) -> npt.NDArray[np.uint8]:
    if b"#" in text:
        text = COMMENT.sub(b"", text)
    digits = np.frombuffer(text.translate(None, SPACES), np.uint8)[:count]
    if len(digits) < count:
        raise ValueError("it is truncated")
    if ((digits != ord("0")) & (digits != ord("1"))).any():
        raise ValueError("it has pixels other than 0 and 1")
    return (ord("1") - digits).astype(np.uint8)


def _numbers_from_text(text: bytes, count: int) -> npt.NDArray[np.uint16]:
    """Parse decimal numbers in blocks, so that intermediate arrays stay small."""
    if b"#" in text:
        text = COMMENT.sub(b"", text)
    if text.translate(None, SPACES + b"0123456789"):
        raise ValueError("it has pixels that are not decimal numbers")
    values = np.empty(count, np.uint16)
    filled = position = 0
    while filled < count and position < len(text):
        space = SPACE.search(text, position + TEXT_BLOCK)  # a number across the end belongs to the block
        end = space.start() if space else len(text)
        block = _parse_block(np.frombuffer(text[position:end] + b" ", np.uint8))[: count - filled]
        values[filled : filled + len(block)] = block
        filled, position = filled + len(block), end
    if filled < count:
        raise ValueError("it is truncated")
    return values


def _parse_block(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Parse decimal numbers separated by whitespace, of at most 65535 each; the last byte is whitespace."""
    is_digit = text >= ord("0")
    ends = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])  # last digit of each number
    starts = np.flatnonzero(is_digit[1:] & ~is_digit[:-1]) + 1
    if is_digit[0]:
        starts = np.concatenate([[0], starts])
    lengths = ends - starts + 1
    if len(lengths) and lengths.max() > 5:
        raise ValueError("it has a number of more than 5 digits")
    values = np.zeros(len(ends), np.int64)
    for place in range(int(lengths.max(initial=0))):
        has_digit = lengths > place
        values[has_digit] += (text[ends[has_digit] - place].astype(np.int64) - ord("0")) * 10**place
    if values.max(initial=0) > 65535:
        raise ValueError(f"it has the value {values.max()}, the limit is 65535")
    return values.astype(np.uint16)
