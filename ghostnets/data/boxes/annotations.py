"""Labelled boxes of an image, and the validation of labels. Importable without torch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.errors import DataError, ImageError
from ghostnets.preprocessing import read_header
from ghostnets.preprocessing.content import read_content
from ghostnets.terminal import printable

__all__ = [
    "BoxAnnotations",
    "BrokenLabels",
    "ImageLabels",
    "LabelRow",
    "read_image_size",
    "read_label_file",
    "validate_labels",
]

TOLERANCE = 1.0  # pixels by which a side may lie outside the image, as the result of rounding
SHOWN = 20  # broken labels per message
MAX_BYTES = 2 << 30  # per label file; COCO's largest is 0.5 GB


class BoxAnnotations(NamedTuple):
    """Labelled boxes of one image; an image without boxes is background."""

    path: Path
    size: tuple[int, int]  # width and height of the upright image in pixels
    boxes: npt.NDArray[np.float64]  # (G, 4), x_min, y_min, x_max, y_max in pixels, within the image
    labels: npt.NDArray[np.int64]  # (G,), class indices
    is_crowd: npt.NDArray[np.bool_]  # (G,), a region with several objects, as in COCO
    areas: npt.NDArray[np.float64]  # (G,), square pixels: area of the object if it is labelled, else of the box


class LabelRow(NamedTuple):
    """One label as read, not yet validated."""

    where: str  # file, and line or number in it, for messages
    label: int
    box: tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels
    is_crowd: bool = False
    area: float | None = None


class ImageLabels(NamedTuple):
    """Labels of one image as read, not yet validated."""

    path: Path
    size: tuple[int, int]  # width and height of the upright image in pixels
    rows: Sequence[LabelRow]


class BrokenLabels:
    """Collects one sentence for each label that cannot be used."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.files: set[Path] = set()  # those that cannot be used as a whole

    def add(self, where: object, reason: str) -> None:
        """Add an invalid label or file, with its location and the reason, which may begin with the location."""
        location = printable(str(where))
        self.sentences.append(reason if reason.startswith(location) else f"{location}: {reason}")
        if isinstance(where, Path):
            self.files.add(where)

    def raise_if_any(self, data: object) -> None:
        """Raise a DataError with the number of broken labels, and the sentences of the first ``SHOWN``."""
        if not self.sentences:
            return
        shown = "\n  ".join(self.sentences[:SHOWN])
        number = len(self.sentences)
        kind, them = ("label", "it") if number == 1 else ("labels", "them")
        more = f"\n  and {number - SHOWN} more" if number > SHOWN else ""
        raise DataError(
            f"{printable(str(data))} has {number} broken {kind}; correct {them}, or skip {them} with skip_broken"
            f" (train: --skip-corrupt):\n  {shown}{more}"
        )


def validate_labels(image: ImageLabels, class_names: Sequence[str], broken: BrokenLabels) -> BoxAnnotations:
    """Return the valid labels of an image, clipped to it; invalid ones are added to ``broken``."""
    width, height = image.size
    rows: dict[tuple[int, tuple[float, ...], bool], LabelRow] = {}
    for row in image.rows:
        if (reason := _find_defect(row, image.size, len(class_names))) is not None:
            broken.add(row.where, reason)
            continue
        x_min, y_min, x_max, y_max = row.box
        box = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
        if (key := (row.label, box, row.is_crowd)) in rows:
            broken.add(row.where, f"it repeats the box and class of {printable(rows[key].where)}")
            continue
        rows[key] = row._replace(box=box)
    boxes = np.array([row.box for row in rows.values()], np.float64).reshape(-1, 4)
    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    labelled = [np.nan if row.area is None else row.area for row in rows.values()]
    return BoxAnnotations(
        image.path,
        image.size,
        boxes,
        np.array([row.label for row in rows.values()], np.int64),
        np.array([row.is_crowd for row in rows.values()], np.bool_),
        np.where(np.isnan(labelled), box_areas, labelled) if labelled else box_areas,
    )


def _find_defect(row: LabelRow, size: tuple[int, int], num_classes: int) -> str | None:
    """Return why a label cannot be used; None if it can."""
    if not 0 <= row.label < num_classes:
        return f"class {row.label} is unknown; there are classes 0 to {num_classes - 1}"
    if not all(map(math.isfinite, row.box)) or not (row.area is None or math.isfinite(row.area)):
        return "a value is not finite"
    if row.area is not None and row.area < 0:
        return f"its area is {row.area:g}"
    (x_min, y_min, x_max, y_max), (width, height) = row.box, size
    text = f"the box {x_min:g}, {y_min:g} to {x_max:g}, {y_max:g}"
    if x_max <= x_min or y_max <= y_min:
        return f"{text} has no area"
    outside = max(-x_min, -y_min, x_max - width, y_max - height)
    if outside > TOLERANCE:
        return f"{text} extends {outside:.1f} pixels beyond the image of {width} x {height}"
    if min(x_max, width) <= max(x_min, 0) or min(y_max, height) <= max(y_min, 0):
        return f"{text} has no area within the image"
    return None


def read_image_size(path: Path, broken: BrokenLabels) -> tuple[int, int] | None:
    """Read the width and height of an upright image; an unreadable image is added to ``broken``, and gives None."""
    try:
        return read_header(path).upright_size
    except ImageError as error:
        reason = "the image does not exist" if not path.exists() else str(error)
        broken.add(path, reason)
        return None


def read_label_file(path: Path) -> str:
    """Read the text of a label file.

    Raises:
        DataError: The file cannot be read, is too large, or is not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 30} GiB, the limit of a label file; split it.")
        return read_content(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise DataError(f"the labels in {printable(str(path))} cannot be read ({reason}); repair the file.") from error
