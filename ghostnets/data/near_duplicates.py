"""Near duplicates by the difference hash, found through buckets of hash bands instead of all pairs. No torch.

The hash has 128 bits: whether each of 8 x 8 pixels of a thumbnail is darker than its neighbour to the right, and than
the one below it (Krawetz, "Kind of Like That", 2013). It is robust to changes of size, compression and brightness.
Flipped copies are found through the hash of the horizontal flip.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Fingerprint", "fingerprint", "group_near_duplicates"]

SIDE = 8
PLAIN = 4.0  # standard deviation of the thumbnail's values, 0 to 255, below which it has no structure to compare


class Fingerprint(NamedTuple):
    """Hashes of an image and its horizontal flip, uint64 (2, 2), and whether the image has no structure."""

    bits: npt.NDArray[np.uint64]
    is_plain: bool


def fingerprint(image: Image.Image) -> Fingerprint:
    """Compute the difference hashes of an image and its horizontal flip."""
    thumbnail = image.convert("L").resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX, reducing_gap=None)
    pixels = np.asarray(thumbnail, dtype=np.float32)
    flipped = pixels[:, ::-1]
    return Fingerprint(np.stack([_hash(pixels), _hash(flipped)]), bool(pixels.std() < PLAIN))


def _hash(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Compute the difference hash, uint64 (2,), of a thumbnail, (9, 9)."""
    rows = pixels[:SIDE, :SIDE] < pixels[:SIDE, 1:]
    columns = pixels[:SIDE, :SIDE] < pixels[1:, :SIDE]
    return np.packbits(np.stack([rows, columns]).reshape(2, 64), axis=1).view("<u8").reshape(2).astype(np.uint64)


def group_near_duplicates(
    hashes: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64], threshold: int
) -> list[tuple[int, ...]]:
    """Group images whose hashes differ in few bits, directly or after a horizontal flip of one.

    Hashes are divided into ``threshold + 1`` bands. Hashes that differ in at most ``threshold`` bits have at least one
    equal band, so only images in the same bucket of a band are compared.

    Args:
        hashes: Hashes of all images and their horizontal flips, uint64 (N, 2, 2).
        indices: Images to compare.
        threshold: Maximum number of differing bits.

    Returns:
        Groups of indices, each sorted; a chain of similar images joins any two of a group.
    """
    parents: dict[int, int] = {}

    def find(item: int) -> int:
        while (parent := parents.setdefault(item, item)) != item:
            parents[item] = parents.setdefault(parent, parent)
            item = parent
        return item

    indices = _unite_equal(hashes, indices, lambda one, other: parents.__setitem__(find(other), find(one)))
    count = len(indices)
    bits = hashes[indices].transpose(1, 0, 2).reshape(2 * count, 2)  # images, then their horizontal flips
    unpacked = np.unpackbits(bits.view(np.uint8), axis=1)
    for band in range(threshold + 1):  # bits from all over the image, since photographs often share a background
        keys = np.packbits(unpacked[:, band :: threshold + 1], axis=1)
        for one, other in _find_similar(bits, keys, threshold):
            if one < count or other < count:
                parents[find(int(indices[one % count]))] = find(int(indices[other % count]))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in list(parents):
        groups[find(index)].append(index)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def _unite_equal(
    hashes: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64], unite: Callable[[int, int], None]
) -> npt.NDArray[np.int64]:
    """Unite images of equal hashes with the first of them; return the first image of each hash."""
    _, first, inverse = np.unique(hashes[indices, 0], axis=0, return_index=True, return_inverse=True)
    represented_by = indices[first][inverse.reshape(-1)]
    for index, other in zip(indices.tolist(), represented_by.tolist(), strict=True):
        if index != other:
            unite(other, index)
    return indices[np.sort(first)]


def _find_similar(
    bits: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint8], threshold: int
) -> Iterator[tuple[int, int]]:
    """Yield pairs of hashes with the same key that differ in at most ``threshold`` bits.

    Sorted by key, each hash is compared with the next, then with the next but one, and so on, in all buckets at once.
    """
    rows = np.ascontiguousarray(keys).view([("", keys.dtype)] * keys.shape[1]).ravel()
    order = np.argsort(rows, kind="stable")
    buckets = np.cumsum(np.concatenate([[0], rows[order][1:] != rows[order][:-1]]))
    active, distance = np.arange(len(order)), 0
    while True:
        distance += 1
        active = active[: np.searchsorted(active, len(order) - distance)]
        active = active[buckets[active] == buckets[active + distance]]
        if not len(active):
            return
        ones, others = order[active], order[active + distance]
        differing = POPCOUNT[(bits[ones] ^ bits[others]).view(np.uint8)].sum(1)
        close = differing <= threshold
        yield from zip(ones[close].tolist(), others[close].tolist(), strict=True)


POPCOUNT = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)
