"""Masks of labelled regions: polygons and run lengths, drawn by the rules of COCO. Importing this loads no torch.

The pixels of a polygon are those of pycocotools (https://github.com/ppwwyyxx/cocoapi, ``common/maskApi.c``): corners
are rounded to fifths of a pixel, and a pixel is inside if its centre is (even-odd rule). Run lengths go down the
columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Region", "RegionMask", "bounds_of_counts", "bounds_of_polygons", "decode_counts"]

GRID = 5  # steps of a polygon's boundary per pixel
CENTER = GRID // 2  # step at the centre of a pixel
MAX_STEPS = 1 << 20  # of a boundary at a time
CODE_START, CODE_BITS = 48, 5  # of compressed run lengths: "0" is 0, five bits each
MAX_BITS = 60

Bounds = npt.NDArray[np.unsignedinteger]


class Region(NamedTuple):
    """The pixels of one label.

    Attributes:
        label: Class.
        bounds: Start and end of each run of pixels, in turn and ascending, (2 * R,); pixels are counted down the
            columns.
        is_crowd: Whether the region has several objects that are not told apart.
    """

    label: int
    bounds: Bounds
    is_crowd: bool

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.bounds[1::2] - self.bounds[::2]).sum(dtype=np.int64))


@dataclass(frozen=True, eq=False)
class RegionMask:
    """The mask of an image that consists of regions.

    A pixel of several regions has the class of the smallest one, and of equal ones of the last; crowds lie beneath all
    others. So an object that lies on a larger one is seen.

    Attributes:
        where: Where the regions are from, for messages.
        size: Width and height of the image in pixels.
        background: Class of pixels of no region.
        regions: The regions in any order.
    """

    where: str
    size: tuple[int, int]
    background: int
    regions: tuple[Region, ...]

    def draw(self) -> Image.Image:
        """Class of each pixel, an image of mode L."""
        width, height = self.size
        labels = np.full(width * height, self.background, np.uint8)
        for region in sorted(self.regions, key=lambda region: (not region.is_crowd, -region.area)):
            if len(bounds := region.bounds.astype(np.intp)):
                covered = np.repeat(np.arange(len(bounds) - 1) % 2 == 0, np.diff(bounds))
                labels[bounds[0] : bounds[-1]][covered] = region.label
        return Image.fromarray(np.ascontiguousarray(labels.reshape(width, height).T))

    def to_bytes(self) -> bytes:
        """Content of the mask, for digests."""
        parts = [np.array([*self.size, self.background], "<i8").tobytes()]
        for region in self.regions:
            parts += [np.array([region.label, region.is_crowd], "<i8").tobytes(), region.bounds.astype("<i8").tobytes()]
        return b"".join(parts)

    def __str__(self) -> str:
        return self.where


def bounds_of_polygons(polygons: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> Bounds:
    """Runs of the pixels that are inside at least one polygon, as in ``Region``.

    Args:
        polygons: Corners x, y in pixels, (P, 2) each; the last is joined to the first.
        size: Width and height of the image in pixels.
    """
    width, height = size
    crossings = [_find_crossings(polygon, size) for polygon in polygons]
    columns, rows = (np.concatenate(parts) for parts in zip(*crossings, strict=True))
    dtype = np.min_scalar_type(width * height)
    if not len(columns):
        return np.zeros(0, dtype)
    left, top = int(columns.min()), int(rows.min())
    inside = np.zeros((int(columns.max()) - left + 1, int(rows.max()) - top + 1), np.bool_)  # the last row is outside
    for columns, rows in crossings:
        count = np.zeros(inside.shape, np.uint8)  # parity matters alone, so it may overflow
        np.add.at(count, (columns - left, rows - top), 1)
        inside |= np.cumsum(count, axis=1, dtype=np.uint8) % 2 == 1
    column, row = np.nonzero(np.diff(inside, axis=1, prepend=False))
    bounds: Bounds = ((column + left) * height + row + top).astype(dtype)
    return bounds


def _find_crossings(
    polygon: npt.NDArray[np.float64], size: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the boundary crosses the centre line of a column: the columns, and the first row whose centre is below."""
    width, height = size
    corners = np.trunc(GRID * polygon + 0.5).astype(np.int64)
    found = [_walk(*block) for block in _split_edges(corners, np.roll(corners, -1, axis=0))]
    left, upper = (np.concatenate(parts) for parts in zip(*found, strict=True))
    columns = left // GRID
    chosen = (left % GRID == CENTER) & (columns >= 0) & (columns < width)
    rows = np.ceil((upper[chosen] + 0.5) / GRID - 0.5).clip(0, height).astype(np.int64)
    return columns[chosen], rows


def _split_edges(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Edges in blocks of about ``MAX_STEPS`` steps, which bounds the memory."""
    blocks = np.cumsum(np.abs(ends - starts).max(axis=1) + 1) // MAX_STEPS
    for block in np.unique(blocks):
        yield starts[blocks == block], ends[blocks == block]


def _walk(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Walk along edges from grid point to grid point; for each change of x, return the lower x and the lower y.

    An edge is walked in the direction in which its longer side grows, one grid point at a time.
    """
    rows = np.arange(len(starts))
    longer = np.abs(ends - starts).argmax(axis=1)  # 0 for x, also of equal sides
    is_reversed = (ends < starts)[rows, longer][:, None]
    lows, highs = np.where(is_reversed, ends, starts), np.where(is_reversed, starts, ends)
    steps = (highs - lows)[rows, longer]
    slopes = (highs - lows)[rows, 1 - longer] / np.maximum(steps, 1)
    edge = np.repeat(rows, steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = lows[rows, longer][edge] + step
    across = np.trunc(lows[rows, 1 - longer][edge] + slopes[edge] * step + 0.5).astype(np.int64)
    is_flat = longer[edge] == 0
    x, y = np.where(is_flat, along, across), np.where(is_flat, across, along)
    changed = (x[1:] != x[:-1]) & (edge[1:] == edge[:-1])
    return np.minimum(x[1:], x[:-1])[changed], np.minimum(y[1:], y[:-1])[changed]


def bounds_of_counts(counts: Sequence[int], size: tuple[int, int]) -> Bounds:
    """Runs as in ``Region`` of the numbers of pixels outside and inside, in turn, that begin outside."""
    bounds: Bounds = np.cumsum(counts, dtype=np.int64).astype(np.min_scalar_type(size[0] * size[1]))
    return bounds[: len(counts) // 2 * 2]


def decode_counts(text: str) -> list[int]:
    """Decode the compressed run lengths of COCO.

    A character has five bits of a number, the lowest first, and a sixth that says whether more follow; from the fourth
    on, numbers are differences from the one two before.

    >>> decode_counts("5X131")
    [5, 40, 3, 41]

    Raises:
        ValueError: It is no such text; the message says why.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - CODE_START
        if not 0 <= code < 1 << CODE_BITS + 1:
            raise ValueError(f"they have the character {character!r}")
        value |= (code & (1 << CODE_BITS) - 1) << shift
        shift += CODE_BITS
        if shift > MAX_BITS:
            raise ValueError("a number in them has more than 60 bits")
        if code < 1 << CODE_BITS:
            if code >> CODE_BITS - 1:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("they end within a number")
    return counts
