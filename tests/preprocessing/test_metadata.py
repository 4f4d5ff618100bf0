"""Damaged, oversized and hostile metadata: pixels are read, bounds hold."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ghostnets.errors import ImageError
from ghostnets.preprocessing import as_array, containers, decode, decoding, is_grey

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
EXIF = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"


def save(suffix: str = "png", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, suffix, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def insert(content: bytes, addition: bytes) -> bytes:
    """Insert chunks after IHDR of a PNG, or segments after SOI of a JPEG."""
    at = 33 if content.startswith(b"\x89PNG") else 2
    return content[:at] + addition + content[at:]


@pytest.mark.parametrize(
    "addition",
    [
        chunk(b"eXIf", b"garbage"),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 3_000_000)),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"\0" * 3_000_000)),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 3_000_000)),
        chunk(b"iCCP", b"a\0\7broken"),
        chunk(b"pHYs", b""),
        chunk(b"tEXt", b"key\0value") * 70,
        chunk(b"tEXt", b"key\0value")[:-4] + b"\0\0\0\0",  # wrong checksum
        chunk(b"acTL", b""),
        chunk(b"fcTL", b"\0" * 26),
    ],
)
def test_png_with_damaged_or_large_metadata_keeps_its_pixels(addition: bytes):
    assert np.array_equal(as_array(decode(insert(save(), addition))), PIXELS)


@pytest.mark.parametrize("headers", [0, 1, 2])
def test_png_orientation_is_read_with_repeated_headers(headers: int):
    content = insert(save(), chunk(b"eXIf", b"Exif\0\0" * headers + EXIF))
    assert np.array_equal(as_array(decode(content)), np.rot90(PIXELS, -1))


def test_png_orientation_after_the_pixels_and_in_text():
    content = save()
    after = content[:-12] + chunk(b"eXIf", EXIF) + content[-12:]
    assert np.array_equal(as_array(decode(after)), np.rot90(PIXELS, -1))
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      26\n" + EXIF.hex().encode()))
    for addition in (xmp, profile):
        assert np.array_equal(as_array(decode(insert(content, addition))), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("addition", "turned"),
    [
        (segment(0xE1, b"Exif\0\0garbage"), False),
        (segment(0xE1, b"Exif\0\0garbage") + segment(0xE1, b"Exif\0\0" + EXIF), True),
        (segment(0xE1, b"Exif\0\0Exif\0\0" + EXIF), True),
        (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='9' tiff:Orientation=\"6\"/>"), True),
        (segment(0xE2, b"MPF\0garbage") + segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 9), False),
        (segment(0xFE, b"comment") * 1000, False),
    ],
)
def test_jpeg_with_damaged_metadata_keeps_its_pixels(addition: bytes, turned: bool):
    content = save("jpeg")
    plain = as_array(decode(content))
    assert np.array_equal(as_array(decode(insert(content, addition))), np.rot90(plain, -1) if turned else plain)


def test_orientation_of_an_opened_image_equals_that_of_its_file():
    for suffix in ("jpeg", "webp", "tiff"):
        content = save(suffix, exif=b"Exif\0\0" + EXIF)
        with Image.open(io.BytesIO(content)) as image:
            assert np.array_equal(as_array(decode(image)), as_array(decode(content)))
        assert decode(content).size == (4, 6), suffix


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_blocks_beyond_the_limit_are_rejected_before_any_decoder(suffix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(containers, "MAX_BLOCKS", 20)
    monkeypatch.setattr(decoding.Image, "open", None)
    block = chunk(b"aaAa", b"") if suffix == "png" else segment(0xE5, b"")
    with pytest.raises(ImageError, match="more than 20"):
        decode(insert(save(suffix), block * 21))


def tiff(tags: dict[int, int], following: int = 0) -> bytes:
    """An 8 x 8 grayscale TIFF file with further tags of type LONG."""
    base = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8, 279: 64} | tags
    start = 8 + 2 + 12 * (len(base) + 1) + 4
    entries = sorted((base | {273: start}).items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + struct.pack("<I", following) + b"\x80" * 64
    )


def test_tiff_tile_larger_than_the_image_is_rejected_before_any_decoder(monkeypatch: pytest.MonkeyPatch):
    assert as_array(decode(tiff({}, following=8))).max() == 128  # its own directory follows it
    monkeypatch.setattr(decoding.Image, "open", None)
    with pytest.raises(ImageError, match="tiles have 30000 x 30000 pixels, the image 8 x 8"):
        decode(tiff({322: 30_000, 323: 30_000}))


def test_tiff_tags_that_share_their_bytes_are_not_read():
    content = bytearray(tiff({1000 + i: 8 for i in range(200)}))
    for position in range(10, 10 + 12 * 209, 12):
        if struct.unpack_from("<H", content, position)[0] >= 1000:
            struct.pack_into("<HI", content, position + 2, 7, len(content) - 8)
    stripped = containers.strip_metadata(bytes(content), "TIFF").content
    assert struct.unpack_from("<H", stripped, 8) == (9,)
    assert as_array(decode(bytes(content))).min() == 128


def test_gif_comments_and_later_frames_are_not_read():
    content = save("gif")
    at = 13 + (3 << ((content[10] & 7) + 1))
    commented = content[:at] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 100 + b"\0" + content[at:]
    assert len(containers.strip_metadata(commented, "GIF").content) <= len(content)
    assert np.array_equal(as_array(decode(commented)), as_array(decode(content)))


def test_pipe_is_rejected_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "a.jpg")
    for read in (decode, is_grey):
        with pytest.raises(ImageError, match="cannot be read as an image"):
            read(tmp_path / "a.jpg")


def test_progressive_jpeg_with_many_scans_is_rejected():
    content = save("jpeg", progressive=True)
    assert decode(content).size == (6, 4)
    at = content.index(b"\xff\xda")
    scan = content[at : content.index(b"\xff", at + 14)]
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode(content[:at] + scan * 101 + content[at:])


FORMATS = ["png", "jpeg", "webp", "tiff", "bmp", "gif", "ppm", *(["avif"] if features.check("avif") else [])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", FORMATS)
def test_mutated_files_are_read_or_rejected(suffix: str):
    content, generator = save(suffix), np.random.default_rng(0)
    for _ in range(25):
        mutated = np.frombuffer(content, np.uint8).copy()
        mutated[generator.integers(0, len(mutated), 3)] = generator.integers(0, 256, 3)
        with contextlib.suppress(ImageError):  # any other exception fails
            assert decode(mutated.tobytes(), max_pixels=100_000).mode in ("L", "RGB")


def test_header_of_mutated_files_is_read_or_rejected():
    generator = np.random.default_rng(1)
    image = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for suffix in ("png", "jpeg", "webp", "tiff", "gif", "bmp", *(["avif"] if features.check("avif") else [])):
        stream = io.BytesIO()
        image.save(stream, suffix)
        for _ in range(60):
            content = bytearray(stream.getvalue())
            for _ in range(4):
                content[generator.integers(12, min(len(content), 200))] = generator.integers(0, 256)
            with contextlib.suppress(ImageError):
                assert min(decoding.read_header(bytes(content)).size) >= 0
