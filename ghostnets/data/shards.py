"""Shards: a data set as a few large files that are read sequentially, from disk or over HTTP.

The format is WebDataset's: tar files in which the files of a sample share a key, here ``KEY.jpg`` (or the suffix of the
image file) and ``KEY.cls``, the index of its class. ``index.json`` holds the class names and the labels of every shard,
so that the data set is known without opening a shard.
"""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.data.datasets import DatasetSplits, content_digest
from ghostnets.data.folders import ImageFolder
from ghostnets.data.labels import LabelledFiles
from ghostnets.data.shard_files import REMOTE, ShardFiles, join_location, read_index
from ghostnets.data.source import check_split
from ghostnets.data.stored_images import ImagePath, decode_image
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.files import write_folder
from ghostnets.preprocessing import MAX_PIXELS, Preprocessing, decode

__all__ = ["INDEX", "ShardDataset", "ShardFolder", "is_shards", "open_shards", "write_shards"]

INDEX = "index.json"
VERSION = 1
MAX_SIDE = 65_535  # pixels per side, as in preprocessing
WINDOW = 8  # number of shards open and shuffled together


@dataclass(frozen=True)
class Shard:
    """One tar file: name, size in bytes, and label and ``content_digest`` of each sample.

    ``digests`` has 8 bytes per sample, little-endian, as hexadecimal; it is None if the index does not record them.
    """

    file: str
    bytes: int
    labels: tuple[int, ...]
    digests: str | None


@dataclass(frozen=True)
class ShardFolder:
    """A folder or URL of shards; a ``DataSource``.

    Attributes:
        root: Path or URL.
        class_names: Names in the order of the labels.
        splits: Shards of ``"train"``, ``"val"`` and, if it exists, ``"test"``.
        typical_size: Median shorter side in pixels.
        channels: 1 if all images are grayscale, else 3.
        common_size: (W, H) of all images, or None if they differ.
    """

    root: str
    class_names: tuple[str, ...]
    splits: dict[str, tuple[Shard, ...]]
    typical_size: int
    channels: int
    common_size: tuple[int, int] | None
    val_from_train = False
    multi_label = False
    task = "classify"
    notes = ()

    @property
    def identity(self) -> str:
        """Digest of the index, independent of the location of the shards."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for split, shards in self.splits.items():
            for shard in shards:
                digest.update(f"\n{split}\0{shard.file}\0{shard.bytes}\0{shard.labels}".encode())
        return digest.hexdigest()

    @property
    def class_counts(self) -> dict[str, tuple[int, ...]]:
        """Number of images of each class, by split."""
        counts = {split: Counter(x for s in shards for x in s.labels) for split, shards in self.splits.items()}
        return {split: tuple(count[i] for i in range(len(self.class_names))) for split, count in counts.items()}

    @property
    def name(self) -> str:
        return self.root.rstrip("/").rpartition("/")[2]

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.splits)

    @property
    def split_sizes(self) -> dict[str, int]:
        return {split: sum(len(shard.labels) for shard in shards) for split, shards in self.splits.items()}

    @property
    def num_images(self) -> int:
        return sum(self.split_sizes.values())

    def load(self, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None) -> DatasetSplits:
        """Open all splits (see ``DataSource``). Images are read on access: they were checked when written."""
        splits = {split: self.load_split(split, preprocessing)[0] for split in self.splits}
        return DatasetSplits(splits["train"], splits["val"], splits.get("test"))

    def load_split(
        self, split: str, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None
    ) -> tuple["ShardDataset", tuple[str, ...]]:
        """Open one split (see ``DataSource``); no file is ever left out."""
        check_split(self, split)
        is_square = self.common_size is not None and self.common_size[0] == self.common_size[1]
        return ShardDataset(self.root, self.splits[split], preprocessing, square=is_square), ()


class ShardDataset:
    """The images of one split.

    Args:
        root: Path or URL of the shards.
        shards: Shards of the split.
        preprocessing: Number of channels, shorter side and interpolation of the images read.
        square: Whether all images are square and of the same size.

    Attributes:
        common_size: (H, W) of all images as they are read, or None if they differ.
    """

    def __init__(
        self, root: str, shards: tuple[Shard, ...], preprocessing: Preprocessing, *, square: bool = False
    ) -> None:
        self.preprocessing = preprocessing
        self.common_size = (preprocessing.resize_to,) * 2 if square else None
        self.shards = shards
        self.labels = torch.tensor([label for shard in shards for label in shard.labels], dtype=torch.int64)
        self.sizes = torch.tensor([len(shard.labels) for shard in shards])
        self.starts = self.sizes.cumsum(0) - self.sizes
        files = [(join_location(root, shard.file), shard.bytes, shard.labels) for shard in shards]
        self.files = ShardFiles(files, open_at_once=2 * WINDOW)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        content, name = self._read(index)
        return self.preprocessing.read(decode(io.BytesIO(content), name=name, max_pixels=self.preprocessing.max_pixels))

    def name(self, index: int) -> str:
        return self._read(index)[1]

    def digests(self) -> np.ndarray | None:
        digests = [shard.digests for shard in self.shards if shard.digests is not None]
        if len(digests) < len(self.shards):
            return None
        return np.frombuffer(bytes.fromhex("".join(digests)), dtype="<u8")

    def _read(self, index: int) -> tuple[bytes, str]:
        shard = int(torch.searchsorted(self.starts, index, right=True)) - 1
        return self.files.read(shard, index - int(self.starts[shard]))

    def streaming_order(self, generator: torch.Generator) -> Tensor:
        """Draw an order of all images, int64 (N,): shuffled shards, and shuffled samples within each ``WINDOW``."""
        shards = torch.randperm(len(self.sizes), generator=generator)
        order = []
        for window in shards.split(WINDOW):
            samples = torch.cat([self.starts[s] + torch.arange(int(self.sizes[s])) for s in window])
            order.append(samples[torch.randperm(len(samples), generator=generator)])
        return torch.cat(order)


def is_shards(data: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, or a folder of shards."""
    return str(data).startswith(REMOTE) or Path(data, INDEX).is_file()


def open_shards(root: str | os.PathLike[str]) -> ShardFolder:
    """Read the index of a folder or URL; no shard is opened.

    Raises:
        DataError: The index is missing or damaged.
    """
    base = str(root) if is_shards(root) and not Path(root).is_dir() else str(Path(root).resolve())
    try:
        content = json.loads(read_index(join_location(base, INDEX)))
        if content["version"] != VERSION:
            raise DataError(
                f"{base} has shards of version {content['version']}, this ghostnets reads version {VERSION};"
                " write the shards again."
            )
        return _parse_index(base, content)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{join_location(base, INDEX)} cannot be used ({error}); write the shards again.") from error


def _parse_index(base: str, content: dict[str, Any]) -> ShardFolder:
    """Parse an untrusted index, checking every value."""
    names, size, common = content["class_names"], content["typical_size"], content["common_size"]
    _demand(isinstance(names, list) and names and all(isinstance(name, str) for name in names), "class_names", names)
    _demand(isinstance(size, int) and 1 <= size <= MAX_SIDE, "typical_size", size)
    _demand(content["channels"] in (1, 3), "channels", content["channels"])
    sides = None if common is None else tuple(common)
    are_sides = sides is None or (len(sides) == 2 and all(1 <= int(side) <= MAX_SIDE for side in sides))
    _demand(are_sides, "common_size", common)
    splits = {
        split: tuple(_parse_shard(entry, len(names)) for entry in shards) for split, shards in content["parts"].items()
    }
    _demand({"train", "val"} <= set(splits) <= {"train", "val", "test"}, "parts", list(splits))
    return ShardFolder(base, tuple(names), splits, size, content["channels"], sides)


def _parse_shard(entry: dict[str, Any], num_classes: int) -> Shard:
    file, size, labels, digests = entry["file"], entry["bytes"], tuple(entry["labels"]), entry.get("digests")
    is_name = isinstance(file, str) and file == file.rpartition("/")[2] and file not in ("", ".", "..")
    _demand(is_name and "\\" not in file and "\0" not in file, "file", file)  # only files next to the index
    _demand(isinstance(size, int) and size >= 0, f"bytes of {file}", size)
    wrong = [label for label in labels if not (type(label) is int and 0 <= label < num_classes)]
    _demand(not wrong, f"label in {file}, of {num_classes} classes,", wrong[:1])
    if digests is not None and len(bytes.fromhex(digests)) != 8 * len(labels):
        raise ValueError(f"{file} does not have one digest per label")
    return Shard(file, size, labels, digests)


def _demand(condition: object, name: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{name} is {str(value)[:100]!r}")


def write_shards(
    source: ImageFolder,
    out: str | os.PathLike[str],
    *,
    images_per_shard: int = 1000,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[ShardFolder, list[str]]:
    """Pack a folder of images into shards. Files are copied unchanged; each is decoded once to find damaged ones.

    Args:
        source: The folder. The shards have its splits, including a validation split taken from the training images.
        out: New folder.
        images_per_shard: Maximum number of images per shard; each shard is a random sample of its split.
        seed: Seed of that sample.
        max_pixels: Maximum number of pixels of an image that is read.
        on_image: Callback after each file.

    Returns:
        The shards, and one sentence for each unreadable file that was left out (``source.skip_corrupt``).

    Raises:
        DataError: Files cannot be read, none is left of a split or a class, or the folder exists.
        StorageError: A file could not be written.
    """
    if source.multi_label:
        raise DataError(f"{source.root} has several labels per image, which shards do not hold; train from the table.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} already exists; choose another folder, or remove it.")
    if images_per_shard < 1:
        raise ConfigurationError(f"images_per_shard is {images_per_shard}; it must be at least 1.")
    problems: list[str] = []
    index: dict[str, Any] = {}
    labels: dict[str, Tensor] = {}
    sizes: set[tuple[int, int]] = set()
    generator = torch.Generator().manual_seed(seed)
    with write_folder(out) as folder:
        for split, files in source.splits.items():
            readable = _select_readable(files, problems, sizes, max_pixels, on_image)
            labels[split] = torch.tensor([label for _, label in readable], dtype=torch.int64)
            shuffled = [readable[i] for i in torch.randperm(len(readable), generator=generator)]
            index[split] = []
            for number, start in enumerate(range(0, len(shuffled), images_per_shard)):
                path = folder / f"{split}-{number:06d}.tar"
                index[split].append(_write_shard(path, shuffled[start : start + images_per_shard], start))
        source.check_readable(problems, source.num_images)
        for split, present in labels.items():
            source.check_left(split, present)
        content = {
            "version": VERSION,
            "class_names": list(source.class_names),
            "typical_size": source.typical_size,
            "channels": source.channels,
            "common_size": sizes.pop() if len(sizes) == 1 else None,
            "parts": index,
        }
        (folder / INDEX).write_text(json.dumps(content) + "\n", encoding="utf-8")
    return open_shards(out), problems


def _select_readable(
    files: LabelledFiles,
    problems: list[str],
    sizes: set[tuple[int, int]],
    max_pixels: int,
    on_image: Callable[[], None],
) -> list[tuple[ImagePath, int]]:
    """Select the files that can be decoded, with their labels; extends ``problems`` and ``sizes``."""
    readable = []
    for path, label in zip(files.paths, files.labels, strict=True):
        assert isinstance(label, int)  # shards are not multi-label
        try:
            sizes.add(decode_image(path, max_pixels=max_pixels).size)
            readable.append((path, label))
        except ImageError as error:
            problems.append(str(error))
        on_image()
    return readable


def _write_shard(path: Path, samples: list[tuple[ImagePath, int]], start: int) -> dict[str, Any]:
    digests = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (file, label) in enumerate(samples, start):
            image = file.read_bytes()
            digests.append(content_digest(image))
            for suffix, content in [(file.suffix.lower(), image), (".cls", str(label).encode())]:
                member = tarfile.TarInfo(f"{number:09d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "labels": [label for _, label in samples],
        "digests": np.array(digests, dtype="<u8").tobytes().hex(),
    }
