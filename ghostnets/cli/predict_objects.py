"""``ghostnets predict DETECTOR IMAGE|FOLDER|...``: find objects in images."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ghostnets import __version__
from ghostnets.artefacts import DetectedObjects, Model, ObjectDetector
from ghostnets.cli.options.predict import PredictCommand
from ghostnets.cli.output import message, result_console
from ghostnets.cli.predict_output import PredictionProgress, hash_network, print_json_list, print_tables
from ghostnets.data.finder import LeftOut
from ghostnets.errors import ConfigurationError
from ghostnets.predict import BoxPictures, Input, PredictionFile, detect_objects, find_inputs, find_object_writer
from ghostnets.predict.object_writers import objects_as_dict
from ghostnets.terminal import format_count

__all__ = ["run_detector"]


def run_detector(command: PredictCommand, model: Model) -> int:
    """Find objects in the images of a command with an opened detector; return the exit code."""
    _check_options(command)
    detector = ObjectDetector(model, threshold=command.threshold, max_pixels=command.max_pixels)
    message(
        f"finding objects with a score above {detector.threshold:g}, at most {detector.max_boxes} per image;"
        f" non-maximum suppression by class at an IoU of {detector.max_iou:g}."
    )
    left_out = LeftOut()
    inputs = find_inputs(command.images, left_out=left_out)
    pictures = None
    if command.draw is not None:
        pictures = BoxPictures(command.draw, detector.class_names, max_pixels=command.max_pixels)
        for name in pictures.numbered:
            message(
                f"pictures show {name} as no. {detector.class_names.index(name) + 1}: the font lacks its characters."
            )
    progress, counts = PredictionProgress(), {"objects": 0, "pictures": 0}

    def find(images: Iterable[Input]) -> Iterator[list[DetectedObjects]]:
        taken: deque[Input] = deque()
        for batch in progress.count(detect_objects(detector, _record(images, taken), workers=command.threads)):
            for found in batch:
                source = taken.popleft()
                counts["objects"] += len(found.labels)
                if pictures is not None and found.error is None:
                    pictures.write(source, found)
                    counts["pictures"] += 1
            yield batch

    with progress:
        if command.out is not None:
            writer = find_object_writer(command.out)(detector.class_names, bom=command.bom)
            with PredictionFile(command.out, settings=_settings(command, detector), writer=writer) as file:
                progress.resume(file.rows, file.errors)
                for batch in find(file.remaining(inputs)):
                    file.write(batch)
        elif command.json:
            print_json_list(find(inputs), objects_as_dict)
        else:
            print_tables(find(inputs), _print_table)
    progress.report()
    for sentence in left_out.sentences():
        message(sentence)
    images = format_count(progress.images - progress.earlier, "image")
    advice = "" if counts["objects"] else "; a lower --threshold shows those of lower scores"
    message(f"found {format_count(counts['objects'], 'object')} in {images}{advice}.")
    if command.out is not None:
        message(f"wrote {command.out}.")
    if pictures is not None:
        message(f"drew {format_count(counts['pictures'], 'picture')} into {pictures.folder}.")
    return 1 if progress.errors else 0


def _check_options(command: PredictCommand) -> None:
    """Raise ConfigurationError for options that apply to classifiers only."""
    given = {
        "--top": command.top is not None,
        "--features": command.features,
        "--tta": command.tta != "none",
        "--sort-into": command.sort_into is not None,
        "--engine ray": command.engine == "ray",
        "--masks": command.masks is not None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise ConfigurationError(f"{command.network} is a detector, and {wrong[0]} is for other networks; omit it.")


def _record(inputs: Iterable[Input], taken: deque[Input]) -> Iterator[Input]:
    """Yield the inputs, and append each to ``taken``, from which the consumer of the results removes it."""
    for source in inputs:
        taken.append(source)
        yield source


def _settings(command: PredictCommand, detector: ObjectDetector) -> dict[str, Any]:
    """Return the settings that determine the objects found in an image."""
    return {
        "ghostnets": __version__,
        "network": hash_network(command.network),
        "runtime": detector.model.runtime,
        "threshold": detector.threshold,
        "max_iou": detector.max_iou,
        "max_boxes": detector.max_boxes,
    }


def _print_table(rows: list[DetectedObjects]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "object", "score", "box (x, y to x, y)")
    table.columns[2].justify = "right"
    for found in rows:
        if found.error is not None:
            table.add_row(found.path, Text("cannot be read", style="red"))
        elif not found.labels:
            table.add_row(found.path, Text("nothing found", style="dim"))
        objects = zip(found.classes, found.scores, found.boxes.tolist(), strict=True)
        for index, (name, score, (x_min, y_min, x_max, y_max)) in enumerate(objects):
            box = f"{x_min:.0f}, {y_min:.0f} to {x_max:.0f}, {y_max:.0f}"
            table.add_row("" if index else found.path, Text(name), f"{score:.1%}", box)
    result_console().print(table)
