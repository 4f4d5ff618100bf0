"""Writers of predictions as CSV, JSON lines and Parquet: chunks of a file, and their concatenation.

The columns of predictions are ``path``, ``answer`` with a threshold or several labels, ``class_1``, ``probability_1``,
... , ``error``, and ``features`` if requested. JSON lines nest the classes. Other tables have columns of their own
(``write_table``).

In CSV, text that a spreadsheet would execute as a formula is preceded by an apostrophe, and control characters are
escaped; other formats keep them.
"""

import codecs
import csv
import io
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ghostnets.artefacts import Prediction
from ghostnets.errors import ConfigurationError, require
from ghostnets.terminal import escape_control

__all__ = [
    "WRITERS",
    "CsvWriter",
    "JsonLinesWriter",
    "MarkedCsvWriter",
    "ParquetWriter",
    "PredictionWriter",
    "append_chunks",
    "as_dict",
    "csv_cell",
    "find_writer",
]

FORMULA_STARTS = tuple("=+-@＝＋－＠\t\r\n")  # a spreadsheet executes cells that start with these


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """The prediction ready for JSON, with the keys ``answer``, ``labels`` and ``features`` only if there are any."""
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    values: dict[str, Any] = {
        "path": prediction.path,
        **({} if prediction.answer is None else {"answer": prediction.answer}),
        **({} if prediction.labels is None else {"labels": list(prediction.labels)}),
        "answers": [{"class": name, "probability": value} for name, value in pairs],
        "error": prediction.error,
    }
    return values if prediction.features is None else {**values, "features": prediction.features.tolist()}


class PredictionWriter(ABC):
    """Writer of one file format.

    Args:
        top: Number of classes per image.
        features: Whether predictions have features.
        answer: Whether predictions have an answer, by a threshold.

    Raises:
        ConfigurationError: The format cannot hold features.
        MissingExtraError: Its library is not installed.
    """

    suffix: ClassVar[str]

    def __init__(self, *, top: int, features: bool, answer: bool = False) -> None:
        self.top, self.features, self.answer = top, features, answer

    @abstractmethod
    def write(self, predictions: Sequence[Prediction], path: Path) -> None:
        """Write a chunk of at least one prediction."""

    @classmethod
    @abstractmethod
    def write_table(cls, columns: Mapping[str, Sequence[Any]], path: Path) -> None:
        """Write a whole file of other columns: strings, floats, and booleans, or None."""

    @abstractmethod
    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        """Write the whole file from its chunks."""


class JsonLinesWriter(PredictionWriter):
    """One JSON object per line."""

    suffix = ".jsonl"

    def write(self, predictions: Sequence[Prediction], path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(as_dict(prediction)) + "\n" for prediction in predictions)

    @classmethod
    def write_table(cls, columns: Mapping[str, Sequence[Any]], path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            for row in zip(*columns.values(), strict=True):
                stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        with path.open("wb") as stream:
            append_chunks(chunks, stream)


class CsvWriter(PredictionWriter):
    """A header, and one row per image; probabilities have six digits."""

    suffix = ".csv"
    mark: ClassVar[bytes] = b""  # before the header

    def __init__(self, *, top: int, features: bool, answer: bool = False) -> None:
        super().__init__(top=top, features=features, answer=answer)
        if features:
            raise ConfigurationError("a CSV file cannot hold --features; write --out PREDICTIONS.parquet or .jsonl.")

    def write(self, predictions: Sequence[Prediction], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(map(self._row, predictions))

    @classmethod
    def write_table(cls, columns: Mapping[str, Sequence[Any]], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            stream.write(cls.mark.decode())
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow(map(csv_cell, row))

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        header = io.StringIO()
        numbered = [f"{name}_{rank}" for rank in range(1, self.top + 1) for name in ("class", "probability")]
        answer = ["answer"] if self.answer else []
        csv.writer(header, lineterminator="\n").writerow(["path", *answer, *numbered, "error"])
        with path.open("wb") as stream:
            stream.write(self.mark + header.getvalue().encode())
            append_chunks(chunks, stream)

    def _row(self, prediction: Prediction) -> list[Any]:
        cells: list[Any] = []
        for name, value in zip(prediction.classes, prediction.probabilities, strict=True):
            cells += [csv_cell(name), f"{value:.6f}"]
        cells += [""] * (2 * self.top - len(cells))
        answer = [csv_cell(prediction.answer or "")] if self.answer else []
        return [csv_cell(prediction.path), *answer, *cells, csv_cell(prediction.error or "")]


class MarkedCsvWriter(CsvWriter):
    """As ``CsvWriter``, but the file begins with a byte order mark, by which Excel recognises UTF-8."""

    mark = codecs.BOM_UTF8


class ParquetWriter(PredictionWriter):
    """Strings and float32; ``features`` is a list of float32, null where there is an error."""

    suffix = ".parquet"

    def __init__(self, *, top: int, features: bool, answer: bool = False) -> None:
        super().__init__(top=top, features=features, answer=answer)
        pyarrow = require("pyarrow", extra="parquet")
        fields = [("path", pyarrow.string()), *([("answer", pyarrow.string())] if answer else [])]
        for rank in range(1, top + 1):
            fields += [(f"class_{rank}", pyarrow.string()), (f"probability_{rank}", pyarrow.float32())]
        fields += [("error", pyarrow.string())]
        fields += [("features", pyarrow.list_(pyarrow.float32()))] if features else []
        self.schema = pyarrow.schema(fields)

    def write(self, predictions: Sequence[Prediction], path: Path) -> None:
        pyarrow, parquet = require("pyarrow", extra="parquet"), require("pyarrow.parquet", extra="parquet")
        columns: dict[str, list[Any]] = {"path": [p.path for p in predictions]}
        if self.answer:
            columns["answer"] = [p.answer for p in predictions]
        for rank in range(self.top):
            columns[f"class_{rank + 1}"] = [p.classes[rank] if p.classes else None for p in predictions]
            columns[f"probability_{rank + 1}"] = [p.probabilities[rank] if p.classes else None for p in predictions]
        columns["error"] = [p.error for p in predictions]
        if self.features:
            columns["features"] = [p.features for p in predictions]
        parquet.write_table(pyarrow.table(columns, schema=self.schema), path)

    @classmethod
    def write_table(cls, columns: Mapping[str, Sequence[Any]], path: Path) -> None:
        pyarrow, parquet = require("pyarrow", extra="parquet"), require("pyarrow.parquet", extra="parquet")
        parquet.write_table(pyarrow.table(dict(columns)), path)

    def concatenate(self, chunks: Sequence[Path], path: Path) -> None:
        parquet = require("pyarrow.parquet", extra="parquet")
        with parquet.ParquetWriter(path, self.schema) as writer:
            for chunk in chunks:
                writer.write_table(parquet.read_table(chunk, schema=self.schema))


WRITERS: dict[str, type[PredictionWriter]] = {
    writer.suffix: writer for writer in (CsvWriter, JsonLinesWriter, ParquetWriter)
}


def find_writer(path: Path, *, bom: bool = False) -> type[PredictionWriter]:
    """The writer for the suffix of a file.

    Args:
        path: The file.
        bom: Whether a CSV file begins with a byte order mark.

    Raises:
        ConfigurationError: The suffix is unknown.
        MissingExtraError: The library of the format is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise ConfigurationError(f"--out is {path}; its suffix must be one of {', '.join(WRITERS)}.")
    if bom and suffix != CsvWriter.suffix:
        raise ConfigurationError(f"--bom is for .csv files, and --out is {path}; omit it.")
    if suffix == ParquetWriter.suffix:
        require("pyarrow", extra="parquet")
    return MarkedCsvWriter if bom else WRITERS[suffix]


def csv_cell(value: Any) -> Any:
    """A CSV cell: six digits of a float, and an apostrophe before text that a spreadsheet would execute."""
    if isinstance(value, str):
        text = escape_control(value)  # a line feed stays, in quotes
        return f"'{text}" if value.startswith(FORMULA_STARTS) else text
    return f"{value:.6f}" if isinstance(value, float) else value


def append_chunks(chunks: Sequence[Path], stream: Any) -> None:
    """Append the bytes of the chunks of a file, in order."""
    for chunk in chunks:
        with chunk.open("rb") as source:
            shutil.copyfileobj(source, stream)
