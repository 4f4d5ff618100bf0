"""A sample of the images of a folder or of shards, labelled or not: for explanations, exports and calibration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ghostnets.data.archives import archive_suffix
from ghostnets.data.boxes.source import find_box_layout, open_boxes
from ghostnets.data.datasets import ArrayDataset, ImageDataset, JoinedDataset, StoredContent, load_files
from ghostnets.data.finder import LeftOut, holds_image, walk_images
from ghostnets.data.labelled_arrow import HUB_DATASET, find_arrow
from ghostnets.data.labelled_tars import find_tars
from ghostnets.data.layout import normalize_name, split_folders
from ghostnets.data.masks.layout import find_mask_folders
from ghostnets.data.shards import is_shards, open_shards
from ghostnets.data.spec import DataSpec
from ghostnets.errors import DataError, ImageError
from ghostnets.preprocessing import IMAGE_SUFFIXES, Preprocessing

__all__ = ["EVALUATION_SPLITS", "Sample", "find_sample", "spread"]

EVALUATION_SPLITS = ("test", "val")  # in the order of preference

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """Images that were chosen, not read yet.

    Attributes:
        split: Split that all images are from; None for the whole of the data.
        labels: Index of each image's class in the names given; -1 without, or for multi-label data.
        notes: Exclusions, one sentence each.
        load: Function that reads the images: preprocessing and callback -> readable images, sentences on the others.
    """

    split: str | None
    labels: tuple[int, ...]
    notes: tuple[str, ...]
    load: Callable[[Preprocessing, Callable[[], None]], tuple[ImageDataset, list[str]]]


def find_sample(
    location: str,
    *,
    most: int,
    class_names: Sequence[str] = (),
    splits: Sequence[str] = EVALUATION_SPLITS,
    has_masks: bool = False,
) -> Sample:
    """Choose images, spread evenly over a folder; of shards, which are shuffled, the first.

    Args:
        location: Anything that ``DataSpec`` opens: a folder, shards or their URL, a table, an archive, or a YAML or
            JSON file of labelled boxes.
        most: Maximum number of images.
        class_names: Class names of a network, for the labels: a folder's image is of the class that one of the folders
            around it is named after.
        splits: Splits to choose from: the first that exists; none, or all missing, for the whole of the data.
        has_masks: Whether the data may be those of a segmentation network: folders of masks beside folders of images
            are then left out.

    Raises:
        DataError: The location does not exist, or has no image.
    """
    names = list(map(normalize_name, class_names))
    labels = {name: label for label, name in enumerate(names) if names.count(name) == 1}
    if is_shards(location):
        return _of_shards(location, most, labels, splits)
    root = Path(location)
    if not root.exists() and archive_suffix(location) is None and not location.startswith(HUB_DATASET):
        raise DataError(f"{root} is not a folder; pass a folder of images, or a folder or URL of shards.")
    if root.is_dir() and (holds_image(location) or not (find_tars(root) or find_arrow(root))):
        masks = [mask_folder for _, mask_folder in find_mask_folders(root)] if has_masks else []
        return _of_folder(root, most, labels, splits, masks)
    if root.is_file() and find_box_layout(root) is not None:
        return _of_description(root, most, splits)
    return _of_labelled(location, most, labels, splits)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Choose up to ``most`` evenly spaced items."""
    number = min(most, len(items))
    return [items[i * len(items) // number] for i in range(number)]


def _of_folder(
    root: Path, most: int, labels: dict[str, int], splits: Sequence[str], left_out_folders: Sequence[Path]
) -> Sample:
    folders = split_folders(root, network_classes=labels)
    split = next((split for split in splits if split in folders), None)
    place = root if split is None else folders[split]
    left_out = LeftOut()
    found = [Path(image.path) for image in walk_images(str(place), left_out) if not image.is_folder]
    found = [path for path in found if not any(path.is_relative_to(folder) for folder in left_out_folders)]
    notes = left_out.sentences()
    if not found:
        more = "".join(f"; {sentence}" for sentence in notes)
        raise DataError(f"{place} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}){more}.")
    paths = spread(found, most)
    indices = tuple(_label(path.relative_to(root).parts[:-1], labels) for path in paths)
    return _of_files(paths, indices, split, tuple(notes))


def _of_labelled(location: str, most: int, labels: dict[str, int], splits: Sequence[str]) -> Sample:
    """Images of a table, of tars, of Arrow or Parquet files, or of an archive."""
    found = DataSpec(location).find()
    split = next((split for split in splits if split in found.splits), None)
    chosen = found.splits.values() if split is None else (found.splits[split],)
    entries = spread([entry for files in chosen for entry in zip(files.paths, files.labels, strict=True)], most)
    paths = [path for path, _ in entries]
    indices = tuple(-1 if isinstance(x, tuple) else labels.get(found.class_names[x], -1) for _, x in entries)
    return _of_files(paths, indices, split, found.notes)


def _of_description(file: Path, most: int, splits: Sequence[str]) -> Sample:
    """Images that a YAML or JSON file of labelled boxes names."""
    found = open_boxes(file, skip_broken=True)
    split = next((split for split in splits if split in found.splits), None)
    chosen = found.splits.values() if split is None else (found.splits[split],)
    paths = spread([image.path for images in chosen for image in images], most)
    return _of_files(paths, (-1,) * len(paths), split, found.notes)


def _of_files(
    paths: Sequence[StoredContent], labels: tuple[int, ...], split: str | None, notes: tuple[str, ...]
) -> Sample:
    """A sample of files, which are read when they are asked for."""

    def load(preprocessing: Preprocessing, on_image: Callable[[], None]) -> tuple[ImageDataset, list[str]]:
        return load_files(paths, torch.tensor(labels), preprocessing, on_image=on_image)

    return Sample(split, labels, notes, load)


def _label(folders: Sequence[str], labels: dict[str, int]) -> int:
    return next((labels[name] for name in map(normalize_name, folders) if name in labels), -1)


def _of_shards(location: str, most: int, labels: dict[str, int], splits: Sequence[str]) -> Sample:
    source = open_shards(location)
    split = next((split for split in splits if split in source.split_names), None)
    chosen = source.split_names if split is None else (split,)
    stored = [label for name in chosen for shard in source.splits[name] for label in shard.labels][:most]
    if not stored:
        raise DataError(f"{location} holds no image.")
    indices = tuple(labels.get(normalize_name(source.class_names[label]), -1) for label in stored)

    def load(preprocessing: Preprocessing, on_image: Callable[[], None]) -> tuple[ImageDataset, list[str]]:
        datasets = [source.load_split(name, preprocessing)[0] for name in chosen]
        images = JoinedDataset(datasets, torch.cat([dataset.labels for dataset in datasets]))
        pixels, readable, problems = [], [], []
        for index, label in enumerate(indices):
            try:
                pixels.append(images[index])
                readable.append(label)
            except ImageError as error:
                problems.append(str(error))
            on_image()
        return ArrayDataset(pixels, torch.tensor(readable, dtype=torch.int64)), problems

    return Sample(split, indices, (), load)
