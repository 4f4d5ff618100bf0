"""Answers as CSV, JSON lines and Parquet: parts of a file, and their joining.

The columns are ``path``, ``class_1``, ``probability_1``, ... , ``error``, and ``features`` where they were asked for; a
line of JSON nests the answers.
"""

import csv
import io
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ghostnets.errors import ConfigurationError, require
from ghostnets.predict.answers import Prediction

__all__ = ["FORMATS", "Csv", "Format", "JsonLines", "Parquet", "as_dict"]


def as_dict(answer: Prediction) -> dict[str, Any]:
    """As it stands in a line of JSON; the features alone are left out where there are none."""
    pairs = zip(answer.classes, answer.probabilities, strict=True)
    values: dict[str, Any] = {
        "path": answer.path,
        "answers": [{"class": name, "probability": value} for name, value in pairs],
        "error": answer.error,
    }
    return values if answer.features is None else {**values, "features": answer.features.tolist()}


class Format(ABC):
    """How answers are written.

    Args:
        top: Answers an image.
        features: Whether there are embeddings.

    Raises:
        ConfigurationError: The format has no place for embeddings.
        MissingExtraError: Its library is not installed.
    """

    suffix: ClassVar[str]

    def __init__(self, *, top: int, features: bool) -> None:
        self.top, self.features = top, features

    @abstractmethod
    def write(self, answers: Sequence[Prediction], path: Path) -> None:
        """Writes a part, from one answer upwards."""

    @abstractmethod
    def join(self, parts: Sequence[Path], path: Path) -> None:
        """Writes the file, whole."""


class JsonLines(Format):
    """One object a line."""

    suffix = ".jsonl"

    def write(self, answers: Sequence[Prediction], path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(as_dict(answer)) + "\n" for answer in answers)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        with path.open("wb") as stream:
            _append(parts, stream)


class Csv(Format):
    """With a header; probabilities with six digits."""

    suffix = ".csv"

    def __init__(self, *, top: int, features: bool) -> None:
        super().__init__(top=top, features=features)
        if features:
            raise ConfigurationError("a CSV file has no place for --features; write --out ANSWERS.parquet or .jsonl.")

    def write(self, answers: Sequence[Prediction], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(map(self._row, answers))

    def join(self, parts: Sequence[Path], path: Path) -> None:
        header = io.StringIO()
        numbered = [f"{name}_{rank}" for rank in range(1, self.top + 1) for name in ("class", "probability")]
        csv.writer(header, lineterminator="\n").writerow(["path", *numbered, "error"])
        with path.open("wb") as stream:
            stream.write(header.getvalue().encode())
            _append(parts, stream)

    def _row(self, answer: Prediction) -> list[str]:
        cells: list[str] = []
        for name, probability in zip(answer.classes, answer.probabilities, strict=True):
            cells += [name, f"{probability:.6f}"]
        cells += [""] * (2 * self.top - len(cells))
        return [answer.path, *cells, answer.error or ""]


class Parquet(Format):
    """Strings and float32; ``features`` is a list of float32, null where there is an error."""

    suffix = ".parquet"

    def __init__(self, *, top: int, features: bool) -> None:
        super().__init__(top=top, features=features)
        pyarrow = require("pyarrow", extra="parquet")
        fields = [("path", pyarrow.string())]
        for rank in range(1, top + 1):
            fields += [(f"class_{rank}", pyarrow.string()), (f"probability_{rank}", pyarrow.float32())]
        fields += [("error", pyarrow.string())]
        fields += [("features", pyarrow.list_(pyarrow.float32()))] if features else []
        self.schema = pyarrow.schema(fields)

    def write(self, answers: Sequence[Prediction], path: Path) -> None:
        pyarrow, parquet = require("pyarrow", extra="parquet"), require("pyarrow.parquet", extra="parquet")
        columns: dict[str, list[Any]] = {"path": [answer.path for answer in answers]}
        for rank in range(self.top):
            columns[f"class_{rank + 1}"] = [a.classes[rank] if a.classes else None for a in answers]
            columns[f"probability_{rank + 1}"] = [a.probabilities[rank] if a.classes else None for a in answers]
        columns["error"] = [answer.error for answer in answers]
        if self.features:
            columns["features"] = [answer.features for answer in answers]
        parquet.write_table(pyarrow.table(columns, schema=self.schema), path)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        parquet = require("pyarrow.parquet", extra="parquet")
        with parquet.ParquetWriter(path, self.schema) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part, schema=self.schema))


FORMATS: dict[str, type[Format]] = {kind.suffix: kind for kind in (Csv, JsonLines, Parquet)}


def _append(parts: Sequence[Path], stream: Any) -> None:
    for part in parts:
        with part.open("rb") as source:
            shutil.copyfileobj(source, stream)
