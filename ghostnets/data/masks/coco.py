"""Masks of the polygons and run lengths in COCO's JSON files. Importing this loads no torch."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ghostnets.data.boxes.annotations import TOLERANCE, BrokenLabels
from ghostnets.data.boxes.coco import CocoAnnotation, CocoImage, read_coco_images
from ghostnets.data.boxes.listed import shared_image_notes, unused_image_notes
from ghostnets.data.masks.layout import MaskPair
from ghostnets.data.masks.regions import Bounds, Region, RegionMask, bounds_of_counts, bounds_of_polygons, decode_counts
from ghostnets.data.masks.table import MAX_CLASSES, ClassTable
from ghostnets.errors import DataError
from ghostnets.terminal import format_count, printable

__all__ = ["read_coco_masks"]

BACKGROUND = "background"
SHOWN = 10  # classes per message


def read_coco_masks(
    files: dict[str, Path], broken: BrokenLabels, notes: list[str], *, max_pixels: int
) -> tuple[ClassTable, dict[str, tuple[MaskPair, ...]]]:
    """Read the classes and the regions of all splits.

    The classes are the categories in the order of their ids, after ``background`` for pixels of no region; a category
    of that name is the background. An image with a region that cannot be used is left out, as its pixels would count
    as background.

    Args:
        files: File of each split.
        broken: Collects invalid regions and files.
        notes: Collects assumptions and exclusions.
        max_pixels: Largest number of pixels of an image.

    Raises:
        DataError: A file cannot be read, the categories of two files differ, or there are too many.
    """
    categories, found = read_coco_images(files, broken, notes)
    names = list(categories.values())
    has_background = BACKGROUND in [name.lower() for name in names]
    classes = names if has_background else [BACKGROUND, *names]
    shift = len(classes) - len(names)
    shown = ", ".join(str(file.name) for file in files.values())
    if len(classes) > MAX_CLASSES or len(set(classes)) < len(classes):
        problem = "two categories of the same name" if len(set(classes)) < len(classes) else f"{len(names)} categories"
        raise DataError(
            f"{printable(shown)} has {problem}; a mask has at most {MAX_CLASSES} classes of different names, with the"
            " background."
        )
    background = [name.lower() for name in classes].index(BACKGROUND)
    ids = [f"{label + shift} {name} (id {id_})" for label, (id_, name) in enumerate(categories.items())]
    notes.append(
        f"COCO, {shown}: pixels of no region are {background} {classes[background]}, and the classes are the categories"
        f" by id: {', '.join(ids[:SHOWN])}{f' and {len(ids) - SHOWN} more' * (len(ids) > SHOWN)}"
    )
    splits = {}
    for split in ("train", "val", "test"):
        pairs = []
        for image in found.get(split, ()):
            regions = _read_regions(image, shift, broken, max_pixels)
            if regions is not None:
                where = f"{files[split]}, {image.name}"
                mask = RegionMask(where, image.size, background, regions)
                pairs.append(MaskPair(image.path, mask, PurePosixPath(image.name).with_suffix("").as_posix()))
        if pairs:
            splits[split] = tuple(pairs)
    notes += _describe_regions(splits)
    notes += shared_image_notes(found)
    notes += unused_image_notes([image for images in found.values() for image in images], broken)
    return ClassTable(tuple(classes), {label: label for label in range(len(classes))}, is_colored=False), splits


def _describe_regions(splits: dict[str, tuple[MaskPair, ...]]) -> list[str]:
    """Sentences on crowds, on regions without a pixel, and on images without regions."""
    notes = []
    for split, pairs in splits.items():
        masks = [pair.mask for pair in pairs if isinstance(pair.mask, RegionMask)]
        regions = [region for mask in masks for region in mask.regions]
        if crowds := sum(region.is_crowd for region in regions):
            notes.append(f"{format_count(crowds, 'crowd')} in {split}: of its class, beneath all other regions")
        if empty := sum(not len(region.bounds) for region in regions):
            notes.append(f"{format_count(empty, 'region')} in {split} too small to cover the centre of a pixel")
        if bare := sum(not mask.regions for mask in masks):
            notes.append(f"{format_count(bare, 'image')} in {split} without a region, all background")
    return notes


def _read_regions(image: CocoImage, shift: int, broken: BrokenLabels, max_pixels: int) -> tuple[Region, ...] | None:
    """The regions of an image; None if one cannot be used, each of which is added to ``broken``.

    Args:
        image: The image.
        shift: Class of the first category.
        broken: Collects invalid regions.
        max_pixels: Largest number of pixels of an image.
    """
    if math.prod(image.size) > max_pixels:
        broken.add(image.path, f"it has more than {max_pixels:,} pixels (--max-pixels)")
        return None
    regions = []
    for annotation in image.annotations:
        if annotation.label is None:
            annotation.add_unknown_category(broken)
            continue
        try:
            bounds = _read_segmentation(annotation, image.size)
        except ValueError as error:
            broken.add(annotation.where, str(error))
        else:
            regions.append(Region(annotation.label + shift, bounds, annotation.is_crowd))
    return tuple(regions) if len(regions) == len(image.annotations) else None


def _read_segmentation(annotation: CocoAnnotation, size: tuple[int, int]) -> Bounds:
    """Runs of the polygons or run lengths of an annotation; raises ValueError if they are broken."""
    segmentation = annotation.content.get("segmentation")
    if isinstance(segmentation, dict):
        return _read_counts(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            "it has neither polygons nor run lengths in segmentation; boxes alone train a detector (--task detect)"
        )
    polygons = [_read_polygon(values, number, size) for number, values in enumerate(segmentation, start=1)]
    return bounds_of_polygons(polygons, size)


def _read_polygon(values: Any, number: int, size: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    if not isinstance(values, list) or not all(type(value) in (int, float) and abs(value) < 1e9 for value in values):
        raise ValueError(f"polygon {number} is not a list of finite numbers")
    if len(values) % 2:
        raise ValueError(f"polygon {number} has {len(values)} numbers; an x and a y for each point are an even number")
    if len(values) < 6:
        raise ValueError(f"polygon {number} has {format_count(len(values) // 2, 'point')}; it needs at least three")
    points = np.array(values, np.float64).reshape(-1, 2)
    outside = max(float(-points.min()), float((points - size).max()))
    if outside > TOLERANCE:
        raise ValueError(f"polygon {number} extends {outside:.1f} pixels beyond the image of {size[0]} x {size[1]}")
    return points


def _read_counts(segmentation: dict[str, Any], size: tuple[int, int]) -> Bounds:
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if stated != [size[1], size[0]]:
        raise ValueError(
            f"its run lengths have the size {str(stated)[:40]}, and the image {[size[1], size[0]]} (height, width)"
        )
    if isinstance(counts, str):
        try:
            counts = decode_counts(counts)
        except ValueError as error:
            raise ValueError(f"its compressed run lengths cannot be read: {error}") from error
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("its run lengths are not a list of non-negative integers, or their compressed text")
    if (total := sum(counts)) != math.prod(size):
        raise ValueError(f"its run lengths sum to {total}, and the image has {size[0]} x {size[1]} = {math.prod(size)}")
    return bounds_of_counts(counts, size)
