"""Shards: a dataset as a few large files that are read one after the other, from a disk or over HTTP.

The format is WebDataset's: tar files in which the files of a sample share their name, here ``KEY.jpg`` (or as the image
is stored) and ``KEY.cls``, the number of its class. ``index.json`` beside them tells the names of the classes and the
labels of every shard, so that nothing has to be opened to know what there is.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostnets.data.datasets import DatasetSplits
from ghostnets.data.folders import ImageFolder, LabelledFiles
from ghostnets.data.shard_files import REMOTE, ShardFiles, join, read_index
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.files import write_atomically, write_text
from ghostnets.preprocessing import Preprocessing, decode

__all__ = ["INDEX", "ShardDataset", "ShardFolder", "is_shards", "open_shards", "write_shards"]

INDEX = "index.json"
VERSION = 1
WINDOW = 8  # shards whose samples are mixed: so many are read at a time


@dataclass(frozen=True)
class Shard:
    """One tar file: its name, its size in bytes, and the label of each sample in it."""

    file: str
    bytes: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ShardFolder:
    """A folder or address with shards; it is used as an ``ImageFolder`` is.

    Attributes:
        root: Path or address.
        class_names: In the order of the labels.
        parts: ``"train"``, ``"val"`` and, where there is one, ``"test"``.
        typical_size: Median shorter side in pixels.
        channels: 1 where all images are grey, else 3.
        common_size: (W, H) of all images, or None where they differ.
    """

    root: str
    class_names: tuple[str, ...]
    parts: dict[str, tuple[Shard, ...]]
    typical_size: int
    channels: int
    common_size: tuple[int, int] | None
    val_is_split_off = False

    @property
    def name(self) -> str:
        return self.root.rstrip("/").rpartition("/")[2]

    def count(self) -> int:
        """Number of images in all parts."""
        return sum(len(shard.labels) for shards in self.parts.values() for shard in shards)

    def load(
        self,
        preprocessing: Preprocessing,
        *,
        skip_corrupt: bool = False,
        on_image: Callable[[], None] = lambda: None,
    ) -> DatasetSplits:
        """All parts. No image is read before it is needed: they were when the shards were written."""
        parts = {part: self.load_split(part, preprocessing)[0] for part in self.parts}
        return DatasetSplits(parts["train"], parts["val"], parts.get("test"))

    def load_split(
        self, part: str, preprocessing: Preprocessing, *, on_image: Callable[[], None] = lambda: None
    ) -> tuple["ShardDataset", list[str]]:
        """One part, and no unreadable files.

        Raises:
            ConfigurationError: There is no such part.
        """
        if part not in self.parts:
            raise ConfigurationError(f"{self.root} has no part {part!r}; it has {', '.join(self.parts)}.")
        is_square = self.common_size is not None and self.common_size[0] == self.common_size[1]
        return ShardDataset(self.root, self.parts[part], preprocessing, square=is_square), []


class ShardDataset:
    """The images of one part. Those of ``WINDOW`` shards are open at a time.

    Args:
        root: Path or address of the shards.
        shards: Of the part.
        preprocessing: How images are read: channels, shorter side, interpolation.
        square: Whether all images have one size, and are square.

    Attributes:
        common_size: (H, W) of all images when they are read, or None where they differ.
    """

    def __init__(
        self, root: str, shards: tuple[Shard, ...], preprocessing: Preprocessing, *, square: bool = False
    ) -> None:
        self.preprocessing = preprocessing
        self.common_size = (preprocessing.resize_to,) * 2 if square else None
        self.labels = torch.tensor([label for shard in shards for label in shard.labels], dtype=torch.int64)
        self.sizes = torch.tensor([len(shard.labels) for shard in shards])
        self.starts = self.sizes.cumsum(0) - self.sizes
        files = [(join(root, shard.file), shard.bytes, len(shard.labels)) for shard in shards]
        self.files = ShardFiles(files, open_at_once=2 * WINDOW)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        shard = int(torch.searchsorted(self.starts, index, right=True)) - 1
        place = index - int(self.starts[shard])
        content, name = self.files.read(shard, place)
        return self.preprocessing.read(decode(io.BytesIO(content), name=name))

    def streaming_order(self, generator: torch.Generator) -> Tensor:
        """Every image once, int64 (N,): shards at random, and of each ``WINDOW`` of them the samples at random."""
        shards = torch.randperm(len(self.sizes), generator=generator)
        order = []
        for window in shards.split(WINDOW):
            samples = torch.cat([self.starts[s] + torch.arange(int(self.sizes[s])) for s in window])
            order.append(samples[torch.randperm(len(samples), generator=generator)])
        return torch.cat(order)


def is_shards(data: str | os.PathLike[str]) -> bool:
    """Whether this is the address of shards, or a folder with some."""
    return str(data).startswith(REMOTE) or Path(data, INDEX).is_file()


def open_shards(root: str | os.PathLike[str]) -> ShardFolder:
    """Reads the index of a folder or address; no shard is opened.

    Raises:
        DataError: There is none, or it is damaged.
    """
    base = str(root) if is_shards(root) and not Path(root).is_dir() else str(Path(root).resolve())
    try:
        content = json.loads(read_index(join(base, INDEX)))
        if content["version"] != VERSION:
            raise DataError(f"{base} has shards of version {content['version']}, this ghostnets reads {VERSION}.")
        return ShardFolder(
            base,
            tuple(map(str, content["class_names"])),
            {
                str(part): tuple(Shard(str(s["file"]), int(s["bytes"]), tuple(map(int, s["labels"]))) for s in shards)
                for part, shards in content["parts"].items()
            },
            int(content["typical_size"]),
            int(content["channels"]),
            None if content["common_size"] is None else tuple(map(int, content["common_size"])),  # type: ignore[arg-type]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{join(base, INDEX)} cannot be used ({error}); write the shards again.") from error


def write_shards(
    source: ImageFolder,
    out: str | os.PathLike[str],
    *,
    images_per_shard: int = 1000,
    seed: int = 0,
    skip_corrupt: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> tuple[ShardFolder, list[str]]:
    """Packs a folder of images. Files go in as they are; each is decoded once, so that a damaged one shows here.

    Args:
        source: The folder. Its parts, one split off for validation included, become those of the shards.
        out: New folder.
        images_per_shard: At most; every shard holds a random choice of its part.
        seed: Of that choice.
        skip_corrupt: Leave unreadable files out instead of giving up.
        on_image: Called after each file.

    Returns:
        The shards, and one sentence for each file left out.

    Raises:
        DataError: Files cannot be read, or the folder exists.
        StorageError: A file could not be written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists already; choose another folder, or remove it.")
    if images_per_shard < 1:
        raise ConfigurationError(f"images_per_shard is {images_per_shard}; it must be at least 1.")
    problems: list[str] = []
    index: dict[str, Any] = {}
    sizes: set[tuple[int, int]] = set()
    generator = torch.Generator().manual_seed(seed)
    for part, files in source.parts.items():
        good = _readable(files, problems, sizes, on_image)
        mixed = [good[i] for i in torch.randperm(len(good), generator=generator)]
        index[part] = []
        for number, start in enumerate(range(0, len(mixed), images_per_shard)):
            path = out / f"{part}-{number:06d}.tar"
            index[part].append(_write_shard(path, mixed[start : start + images_per_shard], start))
    if problems and not skip_corrupt:
        raise DataError(
            f"{len(problems)} of {source.count()} images cannot be used: {' '.join(problems[:5])}"
            " To go on without them: --skip-corrupt."
        )
    content = {
        "version": VERSION,
        "class_names": list(source.class_names),
        "typical_size": source.typical_size,
        "channels": source.channels,
        "common_size": sizes.pop() if len(sizes) == 1 else None,
        "parts": index,
    }
    write_text(out / INDEX, json.dumps(content) + "\n")  # last: without it these are no shards
    return open_shards(out), problems


def _readable(
    files: LabelledFiles, problems: list[str], sizes: set[tuple[int, int]], on_image: Callable[[], None]
) -> list[tuple[Path, int]]:
    """Files that can be decoded, with their labels; adds to the problems, and to the sizes that occur."""
    good = []
    for path, label in zip(files.paths, files.labels, strict=True):
        try:
            sizes.add(decode(path).size)
            good.append((path, label))
        except ImageError as error:
            problems.append(str(error))
        on_image()
    return good


def _write_shard(path: Path, samples: list[tuple[Path, int]], start: int) -> dict[str, Any]:
    with write_atomically(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (file, label) in enumerate(samples, start):
            for suffix, content in [(file.suffix.lower(), file.read_bytes()), (".cls", str(label).encode())]:
                member = tarfile.TarInfo(f"{number:09d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {"file": path.name, "bytes": path.stat().st_size, "labels": [label for _, label in samples]}
