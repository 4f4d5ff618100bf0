"""Example images and tables of a detector's report."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ghostnets.explain.detection_report import BoxExample, ClassBoxes
from ghostnets.explain.page import link_to_file
from ghostnets.measure import BoxScores, box_iou
from ghostnets.models.detection import Detections
from ghostnets.terminal import format_count, printable
from ghostnets.train.detection.supervised import BoxTargets

__all__ = ["BoxMatches", "collect_class_results", "collect_precision_curves", "count_matches", "select_examples"]

MIN_SCORE = 0.3  # detections with a lower score are neither drawn nor counted
MIN_IOU = 0.5  # a detection with a lower IoU with every object of its class is false
SHOWN = 9  # images in each group


class BoxMatches(NamedTuple):
    """Numbers of found objects, missed objects and false detections of an image, without crowds."""

    found: int
    missed: int
    false: int


class NamedPictures(Protocol):
    """Pictures, uint8 (C, H, W), with their names: an ``ImageDataset``, or one that reads them when they are drawn."""

    def __getitem__(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str: ...


def collect_class_results(evaluation: BoxScores, training_boxes: Sequence[int | None]) -> list[ClassBoxes]:
    """Return the results by class, with the numbers of boxes in training."""
    return [
        ClassBoxes(row.name, count, row.boxes, row.mean, row.at_50)
        for row, count in zip(evaluation.classes, training_boxes, strict=True)
    ]


def collect_precision_curves(evaluation: BoxScores) -> dict[str, list[float]]:
    """Return the precision at 101 recalls of each class with boxes, at an IoU threshold of 0.5."""
    rows = zip(evaluation.classes, evaluation.metrics.precision[:, 0], strict=True)
    return {row.name: values.tolist() for row, values in rows if row.boxes}


def select_examples(
    detections: Sequence[Detections],
    targets: Sequence[BoxTargets],
    images: NamedPictures,
    class_names: Sequence[str],
    folder: Path,
) -> dict[str, list[BoxExample]]:
    """Draw the images with the most and the fewest mistakes, which are missed objects and false detections.

    Args:
        detections: Detections of each image, in pixels of its picture.
        targets: Objects of each image, in the same pixels.
        images: The pictures.
        class_names: Names in the order of the labels.
        folder: Folder of the page, for links.
    """
    counts = [count_matches(*pair) for pair in zip(detections, targets, strict=True)]
    order = sorted(range(len(counts)), key=lambda index: (counts[index][1] + counts[index][2], -counts[index][0]))
    best = [index for index in order if counts[index][0]][:SHOWN]
    worst = [index for index in reversed(order) if index not in best and counts[index][1] + counts[index][2]][:SHOWN]

    def example(index: int) -> BoxExample:
        found, missed, false = counts[index]
        pixels = _draw(images[index], detections[index], targets[index], class_names)
        summary = f"{found} found, {missed} missed, {format_count(false, 'false detection')}"
        name = images.name(index)
        return BoxExample(pixels, summary, printable(name), link_to_file(name, folder))

    return {
        "Most mistakes": [example(index) for index in worst],
        "Fewest mistakes": [example(index) for index in best],
    }


def count_matches(detections: Detections, target: BoxTargets) -> BoxMatches:
    """Compare the detections of an image with a score of at least 0.3 with its objects, at an IoU of at least 0.5."""
    objects, _ = target.without_crowds()
    kept = detections.scores >= MIN_SCORE
    iou = torch.from_numpy(box_iou(detections.boxes[kept].numpy(), target.boxes.numpy()))
    iou = iou * (detections.labels[kept][:, None] == target.labels)
    is_crowd = torch.zeros(len(target.boxes), dtype=torch.bool) if target.is_crowd is None else target.is_crowd
    taken = torch.zeros(len(target.boxes), dtype=torch.bool)
    false = 0
    for row in iou:
        possible = torch.where(taken & ~is_crowd, 0.0, row)
        if not len(possible) or possible.max() < MIN_IOU:
            false += 1
        else:
            taken[possible.argmax()] = True
    found = int((taken & ~is_crowd).sum())
    return BoxMatches(found, len(objects) - found, false)


def _draw(pixels: Tensor, detections: Detections, target: BoxTargets, class_names: Sequence[str]) -> Tensor:
    from torchvision.utils import draw_bounding_boxes

    if len(target.boxes):
        pixels = draw_bounding_boxes(pixels, target.boxes, colors="white", width=1)
    kept = detections.scores >= MIN_SCORE
    if not kept.any():
        return pixels
    names = [class_names[label].replace("\n", " ") for label in detections.labels[kept].tolist()]
    return draw_bounding_boxes(pixels, detections.boxes[kept], names, colors="orange", width=2)
