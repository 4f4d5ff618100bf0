"""The table of docs/images.md: a pixel for each format and mode."""

import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from ghostnets.errors import ImageError
from ghostnets.preprocessing import as_array, decode


def saved(pixels: Any, suffix: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, suffix, **options)
    return stream.getvalue()


def png(depth: int, color: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one pixel."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, color, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(bits: int, photometric: int, data: bytes, **tags: int) -> bytes:
    """A grayscale TIFF of one pixel, little-endian."""
    values = {256: 1, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1, 279: len(data)}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    values[273] = 8 + 2 + 12 * (len(values) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + b"\0\0\0\0" + data


def bmp(bits: int, compression: int, data: bytes) -> bytes:
    """A BMP of one pixel with a header of version 4: blue, green, red, alpha."""
    header = struct.pack("<IiiHHIIiiII", 108, 1, 1, 1, bits, compression, len(data), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"\0" * 52
    return b"BM" + struct.pack("<IHHI", 122 + len(data), 0, 0, 122) + header + data


GRAY16 = np.full((1, 1), 0x8042, np.uint16)
CASES = {
    "png gray 1": (png(1, 0, b"\x80"), 255),
    "png gray 2 with tRNS": (png(2, 0, b"\x40", (b"tRNS", b"\0\1")), 255),
    "png gray 4 with tRNS": (png(4, 0, b"\x30", (b"tRNS", b"\0\4")), 51),
    "png gray 16": (png(16, 0, b"\x80\x42"), 128),
    "png gray 16 with tRNS": (png(16, 0, b"\x80\x42", (b"tRNS", b"\x80\x41")), 128),
    "png gray 16 transparent": (png(16, 0, b"\x80\x42", (b"tRNS", b"\x80\x42")), 255),
    "png gray 16 sBIT 12 scaled": (png(16, 0, b"\x80\x08", (b"sBIT", b"\x0c")), 128),
    "png gray 16 sBIT 12 unscaled": (png(16, 0, b"\x08\x01", (b"sBIT", b"\x0c")), 128),
    "png rgb 16": (png(16, 2, b"\x80\x42\x10\x01\x20\x02"), [128, 16, 32]),
    "png rgb 16 with tRNS": (
        png(16, 2, b"\x80\x42\x10\x01\x20\x02", (b"tRNS", b"\x80\x42\x10\x01\x20\x02")),
        [255] * 3,
    ),
    "png la 8": (png(8, 4, b"\x64\x00"), 255),
    "png la 16": (png(16, 4, b"\x64\x00\xff\xff"), [100] * 3),
    "png rgba 16": (png(16, 6, b"\x64\x00\x32\x00\x10\x00\x00\x00"), [255] * 3),
    "png palette with tRNS": (png(8, 3, b"\1", (b"PLTE", b"\1\2\3\4\5\6"), (b"tRNS", b"\xff\0")), [255] * 3),
    "tiff 12 in 16": (tiff(16, 1, struct.pack("<H", 2049), t281=4095), 128),
    "tiff largest value in MaxSampleValue": (tiff(16, 1, struct.pack("<H", 0x8000), t281=40000), 128),
    "tiff 16 WhiteIsZero": (tiff(16, 0, struct.pack("<H", 0x8042)), 127),
    "tiff 8 WhiteIsZero": (tiff(8, 0, b"\x40"), 191),
    "tiff 12 packed": (tiff(12, 1, b"\x80\x10"), 128),
    "tiff int32 of 8 bits": (saved(np.full((1, 1), 200, np.int32), "tiff"), 200),
    "tiff int32 of 16 bits": (saved(np.full((1, 1), 0x8042, np.int32), "tiff"), 128),
    "tiff 16": (saved(GRAY16, "tiff"), 128),
    "tiff 16 deflate": (saved(GRAY16, "tiff", compression="tiff_adobe_deflate"), 128),
    "tiff 1": (saved(Image.new("1", (1, 1), 1), "tiff"), 255),
    "tiff cmyk": (saved(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tiff"), [255, 0, 0]),
    "tiff rgba": (saved(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "tiff"), [255, 255, 255]),
    "jpeg cmyk": (saved(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "jpeg", quality=100), [0, 0, 0]),
    "bmp with alpha mask": (bmp(32, 3, b"\x1e\x14\x0a\0"), [255, 255, 255]),
    "bmp 32 without mask": (bmp(32, 0, b"\x1e\x14\x0a\0"), [10, 20, 30]),
    "gif transparent": (saved(Image.new("P", (1, 1)), "gif", transparency=0), [255, 255, 255]),
    "webp rgba": (saved(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "webp", lossless=True), [255, 255, 255]),
    "pbm text": (b"P1\n# comment\n1 1\n1", 0),
    "pbm": (b"P4\n1 1\n\0", 255),
    "pgm text": (b"P2 1 1 15 3", 51),
    "pgm 255": (b"P5 1 1 255\n\x64", 100),
    "pgm 15": (b"P5 1 1 15\n\x03", 51),
    "pgm 1023": (b"P5 1 1 1023\n\x02\x02", 128),
    "pgm 65535": (b"P5 1 1 65535\n\x80\x42", 128),
    "ppm text": (b"P3 1 1 255 1 2 3", [1, 2, 3]),
    "ppm 1023": (b"P6 1 1 1023\n\x02\x02\0\0\x03\xff", [128, 0, 255]),
}


@pytest.mark.parametrize("case", CASES)
def test_pixel_of_each_format_and_mode(case: str):
    content, expected = CASES[case]
    pixel = as_array(decode(content))[0, 0].tolist()
    assert pixel == (expected if isinstance(expected, list) else [expected] * len(pixel))


@pytest.mark.parametrize(("transform", "expected"), [(0, [100, 128, 128]), (2, [155, 155, 155])])
def test_cmyk_and_ycck_jpeg_as_adobe_writes_them(transform: int, expected: list[int]):
    """Inverted: what is stored of a cyan of 155 is 100. As YCCK it is a luma of 100: red 100, cyan stored as 155."""
    inverted = Image.new("CMYK", (16, 16), (255 - 100, 255 - 128, 255 - 128, 0))
    content = bytearray(saved(inverted, "jpeg", quality=100))
    marker = content.index(b"Adobe")
    content[marker + 11] = transform
    pixel = as_array(decode(bytes(content)))[8, 8].astype(int)
    assert np.abs(pixel - expected).max() <= 2


@pytest.mark.parametrize(("alpha", "expected"), [(255, [10, 20, 30]), (0, [255] * 3), (128, [132, 137, 142])])
def test_palette_with_alpha_in_memory(alpha: int, expected: list[int]):
    image = Image.new("PA", (1, 1))
    image.putpalette([10, 20, 30])
    image.putpixel((0, 0), (0, alpha))
    assert as_array(decode(image))[0, 0].tolist() == expected


def test_tiff_with_premultiplied_alpha():
    content = bytearray(saved(Image.new("RGBA", (1, 1), (50, 25, 10, 128)), "tiff"))
    entry = struct.pack("<HHI", 338, 3, 1)  # ExtraSamples: unassociated alpha is 2, associated 1
    position = content.index(entry) + len(entry)
    assert content[position] == 2
    content[position] = 1
    pixel = as_array(decode(bytes(content)))[0, 0].astype(int)
    assert np.abs(pixel - [50 + 127, 25 + 127, 10 + 127]).max() <= 1


@pytest.mark.parametrize(("orientation", "expected"), [(1, 50), (3, 200)])
def test_heic_orientation_is_applied_once(orientation: int, expected: int):
    pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = np.full((64, 64, 3), 50, np.uint8)
    pixels[32:] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = as_array(decode(saved(pixels, "heif", quality=95, exif=exif.tobytes())))
    assert abs(int(decoded[8, 8, 0]) - expected) < 8


def test_lab_tiff():
    pixels = as_array(decode(saved(Image.new("LAB", (1, 1), (255, 128, 128)), "tiff")))
    assert pixels.min() >= 252


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow reads no AVIF")
def test_avif():
    pixels = as_array(decode(saved(Image.new("RGB", (16, 16), (200, 100, 50)), "avif", quality=95)))
    assert np.abs(pixels[8, 8].astype(int) - [200, 100, 50]).max() < 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(np.ones((1, 1), np.float32), "tiff"), "floating-point"),
        (saved(np.full((1, 1), 70_000, np.int32), "tiff"), "32-bit pixels up to 70000"),
        (saved(np.full((1, 1), -1, np.int32), "tiff"), "negative pixels"),
        (b"P2 1 1 15 16", "its maximum is 15"),
        (b"P5 2 2 255\n\0", "truncated"),
        (b"\0\0\0\x18ftypavis", "AVIF|cannot be read"),
    ],
)
def test_unknown_range_or_damage_is_rejected(content: bytes, message: str):
    with pytest.raises(ImageError, match=message):
        decode(content)


def test_twelve_bits_without_a_tag_give_a_warning():
    with pytest.warns(UserWarning, match="if it holds 12 bits"):
        assert decode(saved(np.full((1, 1), 4000, np.uint16), "png")).getpixel((0, 0)) == 15


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_pixels_of_ordinary_lossless_files_are_pinned(suffix: str):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    digest = hashlib.sha256(as_array(decode(saved(pixels, suffix))).tobytes()).hexdigest()
    assert digest == hashlib.sha256(pixels.tobytes()).hexdigest()
