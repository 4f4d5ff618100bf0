"""``ghostnets eval DETECTOR DATA``: average precision of a detector on labelled boxes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghostnets.artefacts import DetectedObjects, Model, ObjectDetector
from ghostnets.cli.eval_boxes_output import BoxRows, image_rows, print_boxes, to_json, write_boxes_page
from ghostnets.cli.eval_labels import check_classifier_options, find_training_images, open_labels
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import message, print_json, result_console
from ghostnets.cli.predict_output import PredictionProgress
from ghostnets.data import summarize_source
from ghostnets.data.boxes import BoxAnnotations
from ghostnets.data.boxes.folder import BoxFolder
from ghostnets.errors import DataError
from ghostnets.files import write_atomically
from ghostnets.measure import AveragePrecision, BoxScores, ImageDetections, ImageTruth
from ghostnets.predict import Input, detect_objects, find_writer

__all__ = ["run_detector"]

LOWEST_SCORE = 0.05  # of detections that count, as in the evaluation of a training run


@dataclass(frozen=True)
class _LabelledImages:
    """The images to evaluate, with labels in the order of the network's classes."""

    split: str
    images: list[BoxAnnotations]
    summary: dict[str, Any]


def run_detector(command: EvalCommand, model: Model) -> int:
    """Evaluate an opened detector with the boxes that ``predict`` finds, in pixels of the original images."""
    check_classifier_options(command, "a detector")
    writer = None if command.out is None else find_writer(command.out, bom=command.bom)
    detector = ObjectDetector(model, threshold=LOWEST_SCORE, max_pixels=command.max_pixels)
    labelled = _load(command, detector)
    before = time.perf_counter()
    found, skipped = _detect(command, detector, labelled.images)
    images = [image for image, one in zip(labelled.images, found, strict=True) if one.error is None]
    found = [one for one in found if one.error is None]
    seconds = time.perf_counter() - before
    if not images:
        raise DataError(f"no readable image is left in {command.data}.")
    scores = _score(found, images, detector.class_names)
    rows = image_rows(found, images)
    in_training = find_training_images(command.network, [image.path for image in images])
    console = result_console()
    if command.json:
        files = {} if command.page is None else {"page": str(command.page)}
        facts = {"part": labelled.split, "runtime": f"{model.runtime}, {model.description.precision}"}
        values = to_json(scores, rows, in_training)
        print_json({**facts, **values, **files, "skipped": skipped, "data": labelled.summary})
    else:
        print_boxes(scores, rows, labelled.split, in_training)
        console.print(f"{len(images) / seconds:.0f} images/s")
        if skipped:
            message(f"unreadable images left out: {len(skipped)}: {' '.join(skipped[:5])}")
    _write_files(command, writer, scores, rows, labelled)
    return 0


def _write_files(
    command: EvalCommand, writer: Any, scores: BoxScores, rows: BoxRows, labelled: _LabelledImages
) -> None:
    if command.page is not None:
        title = f"{command.network.name} on {Path(command.data).name or command.data}"
        write_boxes_page(command, scores, rows, title=title, split=labelled.split, summary=labelled.summary)
    if writer is not None and command.out is not None:
        with write_atomically(command.out) as temporary:
            writer.write_table(rows.columns(), temporary)
    for label, path in (("one row per image", command.out), ("page", command.page)):
        if path is not None and not command.json:
            result_console().print(f"{label}: {path}", soft_wrap=True)


def _load(command: EvalCommand, detector: ObjectDetector) -> _LabelledImages:
    """Open the data, with labels in the order of the classes of the detector."""
    source, split, to_network = open_labels(command, task="detect", class_names=detector.class_names, kind="box")
    assert isinstance(source, BoxFolder)
    indices = np.array(to_network)
    images = [
        image._replace(labels=indices[image.labels])
        for name in (source.split_names if split == "all" else (split,))
        for image in source.images_of(name)
    ]
    return _LabelledImages(split, images, summarize_source(source))


def _detect(
    command: EvalCommand, detector: ObjectDetector, images: Sequence[BoxAnnotations]
) -> tuple[list[DetectedObjects], list[str]]:
    """Find the objects of all images; return them, and sentences on the images that cannot be read."""
    found: list[DetectedObjects] = []
    inputs = (Input(str(image.path), str(image.path)) for image in images)
    with PredictionProgress() as progress:
        for batch in progress.count(detect_objects(detector, inputs, workers=command.threads), name_errors=False):
            found += batch
    problems = [one.error for one in found if one.error is not None]
    if problems and not command.skip_corrupt:
        raise DataError(f"{problems[0]} ({len(problems)} images cannot be read; repair them, or pass --skip-corrupt.)")
    return found, problems


def _score(
    found: Sequence[DetectedObjects], images: Sequence[BoxAnnotations], class_names: tuple[str, ...]
) -> BoxScores:
    average_precision = AveragePrecision(len(class_names))
    for one, image in zip(found, images, strict=True):
        detections = ImageDetections(one.boxes, np.array(one.scores), np.array(one.labels, np.int64))
        average_precision.add(detections, ImageTruth(image.boxes, image.labels, image.is_crowd, image.areas))
    return BoxScores(len(images), average_precision.metrics(), class_names)
