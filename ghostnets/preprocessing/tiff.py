"""TIFF directories with bounds: the first image's tags that pixels need, checked before any decoder reads them.

TIFF 6.0 and BigTIFF.
"""

import struct
from collections.abc import Iterator

__all__ = ["MAX_TILE_PIXELS", "strip_tiff"]

MAX_TAGS = 4096
MAX_TAG_BYTES = 1 << 20  # per tag, except the lists of strips and tiles; a 16-bit palette has 393 kB
MAX_STRIPS = 300_000  # 65,535 rows of four planes, one row each
MAX_TILE_PIXELS = 2048 * 2048  # per tile larger than the image
TILE_STEP = 256  # writers round the size of the image up to a multiple of at most this

WIDTH, HEIGHT, TILE_WIDTH, TILE_LENGTH = 256, 257, 322, 323
SIZES = frozenset({WIDTH, HEIGHT, TILE_WIDTH, TILE_LENGTH})
STRIP_LISTS = frozenset({273, 279, 324, 325})  # offsets and byte counts of strips and tiles
PIXEL_TAGS = (
    STRIP_LISTS
    | SIZES
    | {
        *(254, 255, 258, 259, 262, 266, 274, 277, 278, 280, 281, 284, 292, 293, 317, 320, 332, 334),
        *(338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 50674),
    }
)
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def strip_tiff(content: bytes) -> bytes:
    """Keep the tags of the first image that its pixels need, and cut the chain to the images after it.

    Offsets stay valid: the directory is overwritten in place by its own shorter version.

    Raises:
        ValueError: The directory is damaged or exceeds a bound, and states which.
    """
    order = "<" if content[:2] == b"II" else ">"
    is_big = 43 in content[2:4]
    entry, size = (order + "HHQ8s", 20) if is_big else (order + "HHI4s", 12)
    count_format, offset_format = (order + "Q", order + "Q") if is_big else (order + "H", order + "I")
    head = struct.calcsize(count_format)
    try:
        (start,) = struct.unpack_from(offset_format, content, 8 if is_big else 4)
        (count,) = struct.unpack_from(count_format, content, start)
    except (struct.error, OverflowError) as error:
        raise ValueError("its directory is damaged") from error
    if count > MAX_TAGS:
        raise ValueError(f"it has {count} tags, the limit is {MAX_TAGS}")
    kept: dict[int, bytes] = {}
    values: dict[int, int] = {}
    for position in _entries(content, start + head, count, size):
        tag, kind, number, value = struct.unpack_from(entry, content, position)
        if tag not in PIXEL_TAGS or tag in kept:
            continue
        _check_tag(tag, TYPE_BYTES.get(kind, 1), number)
        kept[tag] = content[position : position + size]
        if tag in SIZES:
            if kind not in INTEGERS or number != 1:
                raise ValueError(f"its tag {tag} is not a single unsigned integer")
            (values[tag],) = struct.unpack_from(order + INTEGERS[kind], value)
    _check_tiles(values)
    end = start + head + size * count + struct.calcsize(offset_format)
    directory = struct.pack(count_format, len(kept)) + b"".join(kept.values())
    return b"".join([content[:start], directory.ljust(min(end, len(content)) - start, b"\0"), content[end:]])


def _entries(content: bytes, start: int, count: int, size: int) -> Iterator[int]:
    if start + size * count > len(content):
        raise ValueError("its directory is truncated")
    yield from range(start, start + size * count, size)


def _check_tag(tag: int, unit: int, number: int) -> None:
    if tag in STRIP_LISTS and number > MAX_STRIPS:
        raise ValueError(f"it has {number} strips or tiles, the limit is {MAX_STRIPS}")
    if tag not in STRIP_LISTS and number * unit > MAX_TAG_BYTES:
        raise ValueError(f"its tag {tag} has {number * unit} bytes, the limit is {MAX_TAG_BYTES}")


def _check_tiles(values: dict[int, int]) -> None:
    """Reject tiles that are much larger than the image: a decoder allocates a whole tile."""
    width, height = values.get(TILE_WIDTH, 0), values.get(TILE_LENGTH, 0)
    image_width, image_height = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    rounded = [-(-side // TILE_STEP) * TILE_STEP for side in (image_width, image_height)]
    if width * height > max(MAX_TILE_PIXELS, rounded[0] * rounded[1]):
        raise ValueError(f"its tiles have {width} x {height} pixels, the image {image_width} x {image_height}")
