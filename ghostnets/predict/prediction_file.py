"""A file of predictions written in chunks, so that an interrupted run can be resumed, however it ended.

While ``predictions.csv`` is being written, a folder ``predictions.csv.partial`` exists::

    manifest.json   settings that the predictions depend on; rows and errors of each finished chunk; a digest of names
    00000, 00001    the chunks

A chunk that is not in the manifest was being written when the run was killed, and is written again. At the end the
chunks are concatenated into a temporary file, which replaces the target, and the folder is removed, the manifest first:
a folder without one holds no predictions. The folder is locked while it is written.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ghostnets.errors import ConfigurationError, DataError
from ghostnets.files import write_atomically, write_text
from ghostnets.locks import try_lock
from ghostnets.predict.inputs import Input

__all__ = ["PredictionFile"]

CHUNK_ROWS = 16_384
CHUNK_SECONDS = 10


class Row(Protocol):
    """Prediction for one image: of classes or of objects."""

    @property
    def path(self) -> str: ...
    @property
    def error(self) -> str | None: ...


class ChunkWriter(Protocol):
    """Writes chunks, and the file from its chunks."""

    def write(self, predictions: Sequence[Any], path: Path) -> None: ...
    def concatenate(self, chunks: Sequence[Path], path: Path) -> None: ...


class PredictionFile:
    """Context manager that finishes the file on success, and keeps the chunks for a resumed run on an exception.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.parquet``.
        settings: Settings that the predictions depend on apart from the inputs, ready for JSON; a run is resumed only
            with the same settings.
        writer: Writer of the format: ``find_writer(path)(...)`` or ``find_object_writer(path)(...)``.

    Attributes:
        rows: Number of rows written, by this run and the one it resumes.
        errors: Number of rows with an error.

    Raises:
        ConfigurationError: The settings differ from those of the interrupted run, or another process writes the same
            file.
        DataError: The folder of an interrupted run is damaged.
    """

    def __init__(self, path: Path, *, settings: dict[str, Any], writer: ChunkWriter) -> None:
        self.path, self.folder = path, path.with_name(f"{path.name}.partial")
        self.writer = writer
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.folder)
        if lock is None:
            raise ConfigurationError(f"another process is writing {self.folder}; wait for it, or choose another --out.")
        self.lock = lock
        try:
            self.manifest = self._read_manifest(settings)
        except BaseException:
            self.lock.release()
            raise
        self.rows = sum(rows for rows, _ in self.manifest["parts"])
        self.errors = sum(errors for _, errors in self.manifest["parts"])
        self._names = _new_digest()
        self._buffer: list[Row] = []
        self._last_write = time.monotonic()

    def remaining(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Skip the inputs that have rows already.

        Raises:
            DataError: The skipped inputs differ from the inputs of the interrupted run.
        """
        iterator = iter(inputs)
        for _ in range(self.rows):
            self._names.update(_encode_name(getattr(next(iterator, None), "name", "")))
        if self._names.hexdigest() != self.manifest["names"]:
            raise DataError(
                f"the first {self.rows} images are not those of the predictions in {self.folder}; restore them, or"
                " remove the folder to start over."
            )
        return iterator

    def write(self, predictions: Sequence[Row]) -> None:
        """Append rows; they are on disk after ``CHUNK_SECONDS``, or after ``CHUNK_ROWS`` rows."""
        self._buffer += predictions  # one step: an interrupted run keeps whole batches
        self.rows += len(predictions)
        self.errors += _count_errors(predictions)
        if len(self._buffer) >= CHUNK_ROWS or time.monotonic() - self._last_write > CHUNK_SECONDS:
            self._write_chunk()

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write_chunk()
            if kind is None:
                chunks = [self._chunk(index) for index in range(len(self.manifest["parts"]))]
                with write_atomically(self.path) as temporary:
                    self.writer.concatenate(chunks, temporary)
                self._remove_folder()
            elif not self.manifest["parts"]:
                self._remove_folder()
        finally:
            self.lock.release()

    def _remove_folder(self) -> None:
        self._manifest_path.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _read_manifest(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self._manifest_path.exists():
            return {"settings": settings, "names": _new_digest().hexdigest(), "parts": []}
        try:
            manifest: dict[str, Any] = json.loads(self._manifest_path.read_text(encoding="utf-8"))
            earlier = manifest["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._manifest_path} is damaged ({error}); remove {self.folder}.") from error
        if earlier != settings:
            raise ConfigurationError(
                f"{self.folder} holds predictions of a run with other settings ({earlier}, now {settings}); repeat"
                " its command to resume it, remove the folder, or choose another --out."
            )
        return manifest

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _chunk(self, index: int) -> Path:
        return self.folder / f"{index:05}"

    def _write_chunk(self) -> None:
        predictions, self._buffer = self._buffer, []  # never written twice, whenever a signal arrives
        if not predictions:
            return
        with write_atomically(self._chunk(len(self.manifest["parts"]))) as temporary:
            self.writer.write(predictions, temporary)
        for prediction in predictions:
            self._names.update(_encode_name(prediction.path))
        self.manifest["parts"].append((len(predictions), _count_errors(predictions)))
        self.manifest["names"] = self._names.hexdigest()
        write_text(self._manifest_path, json.dumps(self.manifest))
        self._last_write = time.monotonic()


def _count_errors(predictions: Sequence[Row]) -> int:
    return sum(prediction.error is not None for prediction in predictions)


def _new_digest() -> Any:
    return hashlib.sha256()


def _encode_name(name: str) -> bytes:
    return name.encode() + b"\0"
