"""Writers of found objects as JSON lines, CSV, Parquet and COCO JSON: chunks of a file, and their concatenation.

CSV and Parquet have one row for each object, and one without an object for an image in which nothing was found or that
cannot be read: ``path``, ``width``, ``height``, ``class``, ``score``, ``x_min``, ``y_min``, ``x_max``, ``y_max``,
``error``. JSON lines have one object per image. COCO JSON is a data set, with the score in each annotation.
"""

import codecs
import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ghostnets.artefacts import DetectedObjects
from ghostnets.errors import ConfigurationError, require
from ghostnets.predict.writers import append_chunks, csv_cell

__all__ = ["OBJECT_WRITERS", "ObjectWriter", "find_object_writer", "objects_as_dict"]

COLUMNS = ("path", "width", "height", "class", "score", "x_min", "y_min", "x_max", "y_max", "error")


def objects_as_dict(found: DetectedObjects) -> dict[str, Any]:
    """Return an image's objects as JSON values: boxes are x_min, y_min, x_max, y_max in pixels of the upright image."""
    objects = [
        {"class": name, "score": score, "box": box}
        for name, score, box in zip(found.classes, found.scores, found.boxes.tolist(), strict=True)
    ]
    return {
        "path": found.path,
        "width": found.size[0],
        "height": found.size[1],
        "objects": objects,
        "error": found.error,
    }


class ObjectWriter(ABC):
    """Writer of one file format.

    Args:
        class_names: Class names in the order of the labels.
        bom: Whether a CSV file begins with a byte order mark.

    Raises:
        MissingExtraError: The library of the format is not installed.
    """

    suffix: ClassVar[str]

    def __init__(self, class_names: Sequence[str], *, bom: bool = False) -> None:
        self.class_names, self.bom = class_names, bom

    @abstractmethod
    def write(self, predictions: Sequence[DetectedObjects], path: Path) -> None:
        """Write a chunk of at least one image."""

    @abstractmethod
    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        """Write the whole file from its chunks."""


class ObjectJsonLinesWriter(ObjectWriter):
    """One JSON object per image."""

    suffix = ".jsonl"

    def write(self, predictions: Sequence[DetectedObjects], path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(objects_as_dict(found)) + "\n" for found in predictions)

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        with path.open("wb") as stream:
            append_chunks(chunks, stream)


class ObjectCsvWriter(ObjectJsonLinesWriter):
    """CSV with a header and one row per object; coordinates and scores have six decimal places."""

    suffix = ".csv"

    def write(self, predictions: Sequence[DetectedObjects], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            for row in _rows(predictions):
                writer.writerow(["" if value is None else csv_cell(value) for value in row])

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(COLUMNS)
        with path.open("wb") as stream:
            stream.write((codecs.BOM_UTF8 if self.bom else b"") + header.getvalue().encode())
            append_chunks(chunks, stream)


class ObjectParquetWriter(ObjectWriter):
    """Parquet with strings, integers and float32; null where there is no object."""

    suffix = ".parquet"

    def __init__(self, class_names: Sequence[str], *, bom: bool = False) -> None:
        super().__init__(class_names, bom=bom)
        arrow = require("pyarrow", extra="parquet")
        types = dict.fromkeys(COLUMNS, arrow.float32())
        types |= dict.fromkeys(("path", "class", "error"), arrow.string())
        types |= dict.fromkeys(("width", "height"), arrow.int32())
        self.schema = arrow.schema(list(types.items()))

    def write(self, predictions: Sequence[DetectedObjects], path: Path) -> None:
        arrow, parquet = require("pyarrow", extra="parquet"), require("pyarrow.parquet", extra="parquet")
        columns = dict(zip(COLUMNS, map(list, zip(*_rows(predictions), strict=True)), strict=True))
        parquet.write_table(arrow.table(columns, schema=self.schema), path)

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        parquet = require("pyarrow.parquet", extra="parquet")
        with parquet.ParquetWriter(path, self.schema) as writer:
            for chunk in chunks:
                writer.write_table(parquet.read_table(chunk, schema=self.schema))


class CocoWriter(ObjectJsonLinesWriter):
    """COCO data set: images with ids from 1, boxes as x, y, width, height; unreadable images are 0 x 0."""

    suffix = ".json"

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        categories = [{"id": index, "name": name} for index, name in enumerate(self.class_names, start=1)]

        with path.open("w", encoding="utf-8") as stream:
            stream.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
            for index, image in enumerate(_read_lines(chunks)):
                stream.write((",\n" if index else "\n") + json.dumps({"id": index + 1, **image["image"]}))
            stream.write('],\n"annotations": [')
            number = 0
            for index, image in enumerate(_read_lines(chunks)):
                for annotation in image["annotations"]:
                    number += 1
                    values = {"id": number, "image_id": index + 1, **annotation}
                    stream.write((",\n" if number > 1 else "\n") + json.dumps(values))
            stream.write("]}\n")

    def write(self, predictions: Sequence[DetectedObjects], path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(_as_coco(found)) + "\n" for found in predictions)


OBJECT_WRITERS: dict[str, type[ObjectWriter]] = {
    writer.suffix: writer for writer in (ObjectCsvWriter, ObjectJsonLinesWriter, ObjectParquetWriter, CocoWriter)
}


def find_object_writer(path: Path) -> type[ObjectWriter]:
    """Return the writer for the suffix of a file.

    Raises:
        ConfigurationError: The suffix is unknown.
    """
    if path.suffix.lower() not in OBJECT_WRITERS:
        raise ConfigurationError(f"--out is {path}; its suffix must be one of {', '.join(OBJECT_WRITERS)}.")
    return OBJECT_WRITERS[path.suffix.lower()]


def _rows(predictions: Sequence[DetectedObjects]) -> list[tuple[Any, ...]]:
    """Return one row of ``COLUMNS`` per object, and one for each image without objects."""
    rows: list[tuple[Any, ...]] = []
    for found in predictions:
        size = (None, None) if found.error else found.size
        objects = list(zip(found.classes, found.scores, found.boxes.tolist(), strict=True))
        rows += [(found.path, *size, name, score, *box, None) for name, score, box in objects]
        if not objects:
            rows.append((found.path, *size, *[None] * 6, found.error))
    return rows


def _as_coco(found: DetectedObjects) -> dict[str, Any]:
    """Return an image and its annotations in COCO's form, without ids."""
    image: dict[str, Any] = {"file_name": found.path, "width": found.size[0], "height": found.size[1]}
    if found.error is not None:
        image["error"] = found.error
    annotations = []
    for label, score, (x_min, y_min, x_max, y_max) in zip(
        found.labels, found.scores, found.boxes.tolist(), strict=True
    ):
        width, height = x_max - x_min, y_max - y_min
        box = [x_min, y_min, width, height]
        annotations.append(
            {"category_id": label + 1, "bbox": box, "area": width * height, "iscrowd": 0, "score": score}
        )
    return {"image": image, "annotations": annotations}


def _read_lines(chunks: Sequence[Path]) -> Any:
    for chunk in chunks:
        with chunk.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
