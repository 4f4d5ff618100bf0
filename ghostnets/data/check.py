"""Examination of a labelled data set: counts, sizes, unreadable files, duplicates, leaks between splits. No torch.

Each image is decoded once; of each stay a digest, two hashes and its size, some 100 bytes.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.cores import usable_cores
from ghostnets.data.labels import Label, LabelledFolder, indices_of
from ghostnets.data.near_duplicates import Fingerprint, fingerprint, group_near_duplicates
from ghostnets.data.stored_images import ImagePath, content_digest
from ghostnets.errors import ImageError
from ghostnets.preprocessing import MAX_PIXELS, decode, read_header
from ghostnets.preprocessing.content import read_content
from ghostnets.terminal import printable

__all__ = ["DataCheck", "ImageGroup", "check_images"]

CHUNK = 256  # images in flight
HASH_SIDE = 64  # pixels of the shorter side that a JPEG keeps for the hash


class _Facts(NamedTuple):
    digest: int
    fingerprint: Fingerprint
    size: tuple[int, int]
    kind: str  # "JPEG RGB"


class ImageGroup(NamedTuple):
    """Images that are equal or similar.

    Attributes:
        images: Indices into ``DataCheck.paths``.
        is_exact: Whether their files have the same content.
        crosses_splits: Whether they are in different splits.
        crosses_classes: Whether they have different labels.
    """

    images: tuple[int, ...]
    is_exact: bool
    crosses_splits: bool
    crosses_classes: bool


@dataclass(frozen=True)
class DataCheck:
    """Result of ``check_images``.

    Attributes:
        data: The labelled files that were examined.
        splits: Names of the splits.
        paths, labels, split_indices: Path, label and split of each image.
        sizes: Width and height of each image, int32 (N, 2); 0 if it is unreadable.
        kinds: Number of images by format and mode, ``"JPEG RGB"``.
        unreadable: Index and reason of each unreadable image.
        groups: Exact duplicates, and near duplicates that are not exact ones.
        num_plain: Number of images without structure, which are not compared with others.
        threshold: Maximum number of differing bits, of 128, of near duplicates.
    """

    data: LabelledFolder
    splits: tuple[str, ...]
    paths: tuple[ImagePath, ...]
    labels: tuple[Label, ...]
    split_indices: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    kinds: dict[str, int]
    unreadable: tuple[tuple[int, str], ...]
    groups: tuple[ImageGroup, ...]
    num_plain: int
    threshold: int

    @property
    def num_images(self) -> dict[str, int]:
        """Number of images by split."""
        counts = np.bincount(self.split_indices, minlength=len(self.splits))
        return dict(zip(self.splits, counts.tolist(), strict=True))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images by class and split."""
        pairs = zip(self.labels, self.split_indices.tolist(), strict=True)
        found = Counter((index, split) for label, split in pairs for index in indices_of(label))
        return {
            name: {split: found[label, index] for index, split in enumerate(self.splits)}
            for label, name in enumerate(self.data.class_names)
        }

    @property
    def boxes(self) -> dict[str, dict[str, int]] | None:
        """Number of boxes by class and split; None if the labels are not boxes."""
        if self.data.box_counts is None:
            return None
        return {
            name: {split: counts[label] for split, counts in self.data.box_counts.items()}
            for label, name in enumerate(self.data.class_names)
        }

    def describe_label(self, index: int) -> str:
        """Class of an image, or all of them."""
        return "; ".join(self.data.class_names[label] for label in indices_of(self.labels[index])) or "no label"

    @property
    def has_findings(self) -> bool:
        """Whether anything needs attention."""
        return bool(self.data.broken or self.unreadable or self.groups or self.rare_classes)

    @property
    def rare_classes(self) -> list[str]:
        """Classes with fewer than two training images, of which none can be split off for validation."""
        first = self.splits[0]
        return [name for name, counts in self.counts.items() if counts[first] < 2]

    def select(self, *, exact: bool, splits: bool = False, classes: bool = False) -> list[ImageGroup]:
        """Groups of exact or near duplicates, all or those that cross splits or classes."""
        return [
            group
            for group in self.groups
            if group.is_exact == exact
            and (group.crosses_splits or not splits)
            and (group.crosses_classes or not classes)
        ]

    def describe_sizes(self) -> dict[str, Any]:
        """Smallest, median and largest shorter side, and the number of images below 64 pixels."""
        sides = self.sizes.min(1)
        sides = sides[sides > 0]
        if not len(sides):
            return {}
        return {
            "smallest": int(sides.min()),
            "median": int(np.median(sides)),
            "largest": int(sides.max()),
            "below_64": int((sides < 64).sum()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert all findings to types that JSON supports."""

        def name(index: int) -> dict[str, str]:
            return {
                "path": printable(str(self.paths[index])),
                "split": self.splits[self.split_indices[index]],
                "class": self.describe_label(index),
            }

        return {
            "images": len(self.paths),
            "classes": self.counts,
            **({} if self.boxes is None else {"boxes": self.boxes}),
            "shorter_side": self.describe_sizes(),
            "kinds": self.kinds,
            **({} if self.data.broken is None else {"broken": list(self.data.broken)}),
            "unreadable": [{**name(index), "reason": reason} for index, reason in self.unreadable],
            "rare_classes": self.rare_classes,
            "threshold": self.threshold,
            "plain": self.num_plain,
            "groups": [
                {
                    "kind": "exact" if group.is_exact else "near",
                    "crosses_splits": group.crosses_splits,
                    "crosses_classes": group.crosses_classes,
                    "images": [name(index) for index in group.images],
                }
                for group in self.groups
            ],
            "notes": list(self.data.notes),
        }


def check_images(
    folder: LabelledFolder,
    *,
    threshold: int = 6,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[], None] = lambda: None,
) -> DataCheck:
    """Decode and compare all images of a data set.

    Args:
        folder: The labelled files.
        threshold: Maximum number of differing bits of near duplicates, 0 to 15, of the 128 of the difference hash.
        max_pixels: Maximum number of pixels of an image that is read; larger ones are reported as unreadable.
        on_image: Callback after each image.
    """
    examine = partial(_examine, max_pixels=max_pixels)
    splits = tuple(folder.splits)
    paths = tuple(path for files in folder.splits.values() for path in files.paths)
    labels = tuple(label for files in folder.splits.values() for label in files.labels)
    lengths = [len(files.paths) for files in folder.splits.values()]
    split_indices = np.repeat(np.arange(len(splits)), lengths)
    digests = np.zeros(len(paths), dtype=np.uint64)
    hashes = np.zeros((len(paths), 2, 2), dtype=np.uint64)
    is_plain = np.zeros(len(paths), dtype=bool)
    sizes = np.zeros((len(paths), 2), dtype=np.int32)
    kinds: Counter[str] = Counter()
    unreadable = []
    with ThreadPoolExecutor(usable_cores()) as pool:  # decoders release the GIL
        for start in range(0, len(paths), CHUNK):
            for index, facts in enumerate(pool.map(examine, paths[start : start + CHUNK]), start):
                on_image()
                if isinstance(facts, str):
                    unreadable.append((index, facts))
                    continue
                digests[index], sizes[index] = facts.digest, facts.size
                hashes[index], is_plain[index] = facts.fingerprint.bits, facts.fingerprint.is_plain
                kinds[facts.kind] += 1
    readable = np.ones(len(paths), dtype=bool)
    readable[[index for index, _ in unreadable]] = False
    exact = _group_equal(digests, readable.nonzero()[0])
    first = readable & ~is_plain
    for images in exact:
        first[list(images[1:])] = False  # one of equal images represents them
    near = group_near_duplicates(hashes, first.nonzero()[0], threshold)
    members = {images[0]: images for images in exact}

    def build(images: Sequence[int], *, is_exact: bool) -> ImageGroup:
        chosen = list(images)
        return ImageGroup(
            tuple(chosen), is_exact, len(set(split_indices[chosen])) > 1, len({labels[i] for i in chosen}) > 1
        )

    groups = [build(images, is_exact=True) for images in exact]
    groups += [build(sorted(i for r in images for i in members.get(r, (r,))), is_exact=False) for images in near]
    return DataCheck(
        folder,
        splits,
        paths,
        labels,
        split_indices,
        sizes,
        dict(kinds.most_common()),
        tuple(unreadable),
        tuple(groups),
        int(is_plain.sum()),
        threshold,
    )


def _examine(path: ImagePath, *, max_pixels: int) -> _Facts | str:
    """Return the properties of an image, or why it cannot be read."""
    try:
        content = read_content(path) if isinstance(path, Path) else path.read_bytes()
    except (OSError, ValueError) as error:
        return f"{printable(str(path))} cannot be read ({getattr(error, 'strerror', None) or error})."
    try:
        header = read_header(content, name=str(path))
        image = decode(io.BytesIO(content), name=str(path), min_side=HASH_SIDE, max_pixels=max_pixels)
    except ImageError as error:
        return str(error)
    return _Facts(content_digest(content), fingerprint(image), header.size, f"{header.format} {header.mode}")


def _group_equal(digests: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64]) -> list[tuple[int, ...]]:
    order = indices[np.argsort(digests[indices], kind="stable")]
    _, starts, counts = np.unique(digests[order], return_index=True, return_counts=True)
    groups = [
        tuple(order[start : start + count].tolist()) for start, count in zip(starts, counts, strict=True) if count > 1
    ]
    return sorted(groups)
