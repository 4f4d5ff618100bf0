"""The labelled images of Hugging Face data sets: Arrow files of ``save_to_disk``, Parquet files of the hub. No torch.

They are read with pyarrow alone, and nothing is downloaded: a name is looked up in the caches of ``datasets`` and of
``huggingface_hub``. Arrow files are read in place; the images of Parquet files are copied once into the cache of this
package, as their columns are compressed.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from ghostnets.data.archives import cache_folder
from ghostnets.data.finder import holds_image, is_system_name
from ghostnets.data.label_table import LABEL_COLUMNS
from ghostnets.data.labelled import ImageFile, build_labelled_folder, describe_assumed_splits
from ghostnets.data.labels import LabelledFolder
from ghostnets.data.layout import normalize_name, split_in_name
from ghostnets.data.stored_images import ImagePath, StoredImage
from ghostnets.errors import DataError, require
from ghostnets.files import write_folder
from ghostnets.preprocessing.content import detect_format
from ghostnets.terminal import format_names

__all__ = ["HUB_DATASET", "find_arrow", "find_cached_dataset", "read_labelled_arrow"]

HUB_DATASET = "hf://datasets/"
SUFFIXES = (".arrow", ".parquet")


class _Table(NamedTuple):
    """The images and labels of a file; a label is None if it is missing."""

    images: list[ImagePath]
    labels: list[str | None]
    columns: "_ImageColumns"


def find_cached_dataset(location: str) -> Path:
    """Folder of a data set of the hub, ``hf://datasets/OWNER/NAME``, in the local caches.

    Raises:
        DataError: It is not there; the sentence says how to fetch it.
    """
    name = location.removeprefix(HUB_DATASET).strip("/")
    home = Path(
        os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface")
    )
    snapshots = (
        Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"datasets--{name.replace('/', '--')}" / "snapshots"
    )
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")) / name.replace("/", "___").lower()
    candidates = [
        path for folder in (prepared, snapshots) for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}")
    ]
    if not candidates:
        raise DataError(
            f"the data set {name} is not in the cache of Hugging Face ({snapshots.parent}), and nothing is downloaded;"
            f" fetch it with `hf download {name} --repo-type dataset`, or pass the folder of a copy."
        )
    newest = max(candidates, key=lambda path: path.stat().st_mtime)
    if newest.is_relative_to(snapshots):
        return snapshots / newest.relative_to(snapshots).parts[0]  # the revision
    return newest.parent


def find_arrow(root: Path) -> dict[str, list[Path]]:
    """Find the Arrow or Parquet files of a folder, by split; empty if there are none."""
    if not root.is_dir() or not _holds_tables(root):
        return {}
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith("cache-")  # results of map() and filter()
        and not any(map(is_system_name, path.relative_to(root).parts))
    ]
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(split_in_name(str(path.relative_to(root))) or "train", []).append(path)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _holds_tables(root: Path) -> bool:
    """Whether Arrow or Parquet files are in a folder or two levels below, and no images."""
    if holds_image(str(root)):  # early exit: the search for tables would list all images
        return False
    return any(next(root.glob(f"{depth}*{suffix}"), None) for depth in ("", "*/", "*/*/") for suffix in SUFFIXES)


def read_labelled_arrow(
    files: dict[str, list[Path]], *, network_classes: Collection[str] | None = None, skip_unlabelled: bool = False
) -> LabelledFolder:
    """Read the labels of Arrow or Parquet files; no image is decoded.

    Args:
        files: Files of ``find_arrow``.
        network_classes: Classes of the network that is evaluated; None for training (see ``find_labelled``).
        skip_unlabelled: Leave out images without a label instead of failing.

    Raises:
        DataError: A file is damaged, or has no images or labels.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow", extra="parquet")
    first = next(iter(files.values()))[0]
    images: list[ImageFile] = []
    notes: list[str] = []
    declared: set[str] = set()
    unlabelled = 0
    for split, paths in files.items():
        for path in paths:
            table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_arrow(path)
            notes += table.columns.notes
            declared |= set(table.columns.class_names or ())
            for image, label in zip(table.images, table.labels, strict=True):
                if label is None:
                    unlabelled += 1
                else:
                    stored = image if isinstance(image, StoredImage) else None
                    size = stored.size if stored else -1
                    images.append(ImageFile(split, (label,), str(image), image.name, size, stored=stored))
    notes = list(dict.fromkeys(notes))
    notes += describe_assumed_splits(files)
    if unlabelled:
        sentence = f"{unlabelled} of {unlabelled + len(images)} images in {first.parent} have no label"
        if not skip_unlabelled or not images:
            raise DataError(f"{sentence}; add labels, or skip them: --skip-corrupt.")
        notes.append(f"left out: {sentence}")
    used = {image.class_name for image in images if image.split == "train"}
    if without := [] if network_classes is not None else sorted(declared - used):
        shown = format_names(without)
        notes.append(f"no class of the network: {shown} (declared in the data set, but without training images)")
    return build_labelled_folder(images, tuple(files), first.parent, notes, network_classes=network_classes)


def _read_arrow(path: Path) -> _Table:
    """Read an Arrow stream; its images stay where they are in the file."""
    pa = require("pyarrow", extra="parquet")

    try:
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
            reader = pa.ipc.open_stream(pa.BufferReader(content))
            columns = _find_columns(reader.schema, path)
            images: list[ImagePath] = []
            labels: list[str | None] = []
            for batch in reader:
                struct = batch.column(columns.image)
                images += _locate(struct, content, path, start=len(images))
                labels += columns.parse(batch.column(columns.label).to_pylist(), path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as an Arrow file ({error}).") from error
    return _Table(images, labels, columns)


def _locate(struct: Any, content: Any, path: Path, *, start: int) -> Iterator[ImagePath]:
    """Places in the file of the images of a batch, a column of struct<bytes, path>."""
    data, names = struct.field("bytes"), struct.field("path").to_pylist()
    _, offsets_buffer, values = data.buffers()
    width = np.int64 if str(data.type) == "large_binary" else np.int32
    offsets = np.frombuffer(offsets_buffer, dtype=width)[data.offset : data.offset + len(data) + 1].astype(np.int64)
    base = values.address - content.address if values is not None else 0
    if values is not None and not 0 <= base <= content.size - values.size:
        raise DataError(f"{path} is compressed; write it without compression, or as Parquet.")
    valid = data.is_valid().to_pylist()
    for row, name in enumerate(names):
        if not valid[row]:
            if not name or not Path(name).is_file():
                raise DataError(
                    f"{path} names the image {name!r}, which is not here; save the data set with its images."
                )
            yield Path(name)
            continue
        offset, size = base + int(offsets[row]), int(offsets[row + 1] - offsets[row])
        yield StoredImage(str(path), _name(start + row, name, content[offset : offset + 32].to_pybytes()), offset, size)


def _read_parquet(path: Path) -> _Table:
    """Copy the images of a Parquet file into the cache, unless it holds them, and read the labels."""
    pa = require("pyarrow", extra="parquet")
    parquet = require("pyarrow.parquet", extra="parquet")

    status = path.resolve().stat()
    key = hashlib.sha256(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / key / path.stem
    try:
        with parquet.ParquetFile(path) as file:
            columns = _find_columns(file.schema_arrow, path)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    _copy_images(file, columns.image, folder, path)
            labels = columns.parse(file.read([columns.label]).column(0).to_pylist(), path)
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as a Parquet file ({error}).") from error
    blob = str(folder / "images.bin")
    return _Table([StoredImage(blob, *entry) for entry in index], labels, columns)


def _copy_images(file: Any, column: str, folder: Path, path: Path) -> None:
    index: list[tuple[str, int, int]] = []
    with write_folder(folder) as target, (target / "images.bin").open("wb") as blob:
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for entry in batch.column(0).to_pylist():
                content = (entry or {}).get("bytes")
                if content is None:
                    raise DataError(f"{path} has no bytes of image {len(index)}; save the data set with its images.")
                index.append((_name(len(index), entry.get("path"), content[:32]), blob.tell(), len(content)))
                blob.write(content)
        (target / "index.json").write_text(json.dumps(index), encoding="utf-8")


class _ImageColumns(NamedTuple):
    image: str
    label: str
    class_names: tuple[str, ...] | None  # names of a ClassLabel column
    notes: tuple[str, ...]  # one sentence per ambiguity

    def parse(self, values: list[Any], path: Path) -> list[str | None]:
        """Labels as names; -1 and null are missing."""
        if self.class_names is None:
            return [None if value is None else normalize_name(str(value)) for value in values]
        names = self.class_names
        if beyond := [value for value in values if value is not None and value >= len(names)]:
            raise DataError(
                f"the column {self.label} of {path} has the label {max(beyond)}, but names {len(names)} classes (0 to"
                f" {len(names) - 1}); correct the labels, or the names."
            )
        return [names[value] if value is not None and value >= 0 else None for value in values]


def _find_columns(schema: Any, path: Path) -> _ImageColumns:
    """The image and label columns, by the features that ``datasets`` records, or else by type and name."""
    features = _read_features(schema, path)
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    images = [
        name for name, kind in kinds.items() if kind.startswith("struct<") and "bytes: " in kind and "path: " in kind
    ]
    if not images:
        raise DataError(f"{path} has no column of images (it has {', '.join(schema.names)}).")
    classes = {
        name: tuple(normalize_name(str(each)) for each in feature["names"])
        for name, feature in features.items()
        if name in kinds and _names_classes(feature)
    }
    named = [name for name in LABEL_COLUMNS if name in kinds]
    label = (
        next((name for name in named if name in classes), None) or next(iter(classes), None) or next(iter(named), None)
    )
    if label is None:
        raise DataError(f"{path} has no column of labels (it has {', '.join(schema.names)}); call one label.")
    if "list" in kinds[label]:
        raise DataError(
            f"the column {label} of {path} has several labels per image; a network learns one label per image."
        )
    notes = []
    if len(images) > 1:
        notes.append(f"of the columns of images {', '.join(images)} the first is read")
    if others := [name for name in dict.fromkeys([*named, *classes]) if name != label]:
        notes.append(f"the labels are read from the column {label}, not from {', '.join(others)}")
    if label not in classes and kinds[label].removeprefix("u").startswith("int"):
        notes.append(f"the classes have no names: the numbers of the column {label} are used")
    return _ImageColumns(images[0], label, classes.get(label), tuple(notes))


def _read_features(schema: Any, path: Path) -> dict[str, Any]:
    """Return the features that ``datasets`` records in the metadata of a file, by column; empty without such a record.

    Raises:
        DataError: The record is damaged.
    """
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: dict[str, Any] = dict(metadata.get("info", {}).get("features", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"the metadata of {path} (huggingface) is damaged ({error}); save the data set again."
        ) from error
    return features


def _names_classes(feature: Any) -> bool:
    """Return whether a feature is a ``ClassLabel`` with names."""
    is_class = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    return is_class and isinstance(feature.get("names"), list) and bool(feature["names"])


def _name(row: int, path: str | None, start: bytes) -> str:
    """Name of an image: that of its file, or its row, with a suffix."""
    name = f"{row:07d}" if not path else f"{row:07d}-{Path(path).name}"
    if Path(name).suffix:
        return name
    return f"{name}.{(detect_format(start) or 'jpg').lower().replace('jpeg', 'jpg')}"
