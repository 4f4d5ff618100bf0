"""A file of answers that grows in parts, so that a run that was stopped in any way goes on where it was.

While ``answers.csv`` is being made there is a folder ``answers.csv.partial``::

    manifest.json   what the answers depend on; rows, and errors, of each part that is whole; a digest of names
    00000, 00001    the parts

A part that is not in the manifest was being written when the run was killed, and is written again. At the end the
parts are joined beside the file, which is then put into place, and the folder is removed.
"""

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ghostnets.errors import ConfigurationError, DataError
from ghostnets.files import write_atomically, write_text
from ghostnets.predict.answers import Prediction
from ghostnets.predict.formats import FORMATS
from ghostnets.predict.inputs import Input

__all__ = ["AnswerFile"]

PART_ROWS = 16_384
PART_SECONDS = 10


class AnswerFile:
    """Used as a context: leaving it without an error finishes the file, with one keeps what there is for the next run.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.parquet``.
        settings: What the answers depend on beside the inputs, ready for JSON. A folder of parts that was made with
            others is not gone on with.
        top: As ``Format``.
        features: As ``Format``.

    Attributes:
        rows: So many are in the file by now.
        errors: Of them rows with an error.

    Raises:
        ConfigurationError: Another suffix, other settings, another process at work on the same file, or as ``Format``.
        DataError: What an earlier run left is damaged.
    """

    def __init__(self, path: Path, *, settings: dict[str, Any], top: int, features: bool) -> None:
        if path.suffix not in FORMATS:
            raise ConfigurationError(f"--out is {path}; its suffix must be one of {', '.join(FORMATS)}.")
        self.path, self.folder = path, path.with_name(f"{path.name}.partial")
        self.format = FORMATS[path.suffix](top=top, features=features)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = _locked(self.folder)
        try:
            self.manifest = self._read_manifest(settings)
        except BaseException:
            self.lock.close()
            raise
        self.rows = sum(rows for rows, _ in self.manifest["parts"])
        self.errors = sum(errors for _, errors in self.manifest["parts"])
        self._names = _digest()
        self._waiting: list[Prediction] = []
        self._last = time.monotonic()

    def remaining(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """The inputs that have no row yet.

        Raises:
            DataError: Those that have one are not those of the earlier run.
        """
        iterator = iter(inputs)
        for _ in range(self.rows):
            self._names.update(_key(getattr(next(iterator, None), "name", "")))
        if self._names.hexdigest() != self.manifest["names"]:
            raise DataError(
                f"the first {self.rows} images are not those that {self.folder} has answers for; restore them, or"
                " remove the folder to begin again."
            )
        return iterator

    def write(self, answers: list[Prediction]) -> None:
        """Takes the next rows; they are on disk within ``PART_SECONDS``, or ``PART_ROWS``, of later ones."""
        self._waiting += answers  # in one step: an interrupted run keeps whole batches
        self.rows += len(answers)
        self.errors += _errors(answers)
        if len(self._waiting) >= PART_ROWS or time.monotonic() - self._last > PART_SECONDS:
            self._write_part()

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write_part()
            if kind is None:
                parts = [self._part(index) for index in range(len(self.manifest["parts"]))]
                with write_atomically(self.path) as temporary:
                    self.format.join(parts, temporary)
                shutil.rmtree(self.folder)
            elif not self.manifest["parts"]:
                shutil.rmtree(self.folder)
        finally:
            self.lock.close()

    def _read_manifest(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self._manifest_path.exists():
            return {"settings": settings, "names": _digest().hexdigest(), "parts": []}
        try:
            manifest: dict[str, Any] = json.loads(self._manifest_path.read_text(encoding="utf-8"))
            earlier = manifest["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._manifest_path} is damaged ({error}); remove {self.folder}.") from error
        if earlier != settings:
            raise ConfigurationError(
                f"{self.folder} holds answers of a run with other settings ({earlier}, now {settings}); repeat its"
                " command to go on with it, or remove the folder, or choose another --out."
            )
        return manifest

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _part(self, index: int) -> Path:
        return self.folder / f"{index:05}"

    def _write_part(self) -> None:
        answers, self._waiting = self._waiting, []  # never written twice, wherever a signal comes
        if not answers:
            return
        with write_atomically(self._part(len(self.manifest["parts"]))) as temporary:
            self.format.write(answers, temporary)
        for answer in answers:
            self._names.update(_key(answer.path))
        self.manifest["parts"].append((len(answers), _errors(answers)))
        self.manifest["names"] = self._names.hexdigest()
        write_text(self._manifest_path, json.dumps(self.manifest))
        self._last = time.monotonic()


def _errors(answers: list[Prediction]) -> int:
    return sum(answer.error is not None for answer in answers)


def _digest() -> Any:
    return hashlib.sha256()


def _key(name: str) -> bytes:
    return name.encode() + b"\0"


def _locked(folder: Path) -> IO[str]:
    """Held until it is closed, or the process is dead."""
    stream = (folder / "lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise ConfigurationError(
            f"another process is writing {folder}; wait for it, or choose another --out."
        ) from error
    return stream
