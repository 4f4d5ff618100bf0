"""Lists of paths, one per line, in the common encodings and with any line endings."""

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ghostnets.data.text import decode_text
from ghostnets.errors import DataError

__all__ = ["PathList"]

MAX_LINE = 32_768  # characters; no system has longer paths
MAX_PIPE_BYTES = 2 * 1024**3  # largest list from a pipe, which is copied


class PathList:
    """A file, or a pipe, with one path per line.

    UTF-8 or UTF-16, with or without a byte-order mark; lines end with LF, CR or CR LF. Blank lines are skipped, and
    spaces or quotes around a path are removed unless a file has exactly this name. A pipe is copied, so that it can be
    read twice.

    Args:
        path: The file; ``/dev/stdin`` or ``/dev/fd/N`` for a pipe.

    Raises:
        DataError: The file cannot be opened, or a pipe holds more than ``MAX_PIPE_BYTES``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            is_file = stat.S_ISREG(Path(path).stat().st_mode)
            self._copy = None if is_file else _copy_pipe(path)
        except OSError as error:
            raise DataError(f"the list {path} cannot be read ({error.strerror}).") from error

    def read(self) -> Iterator[tuple[str, str | None]]:
        """Yield (path, None) for each line; for a line that is too long, its start and an error message."""
        if self._copy is not None:
            self._copy.seek(0)
            stream = decode_text(self._copy)
            try:
                yield from _read_lines(stream)
            finally:
                stream.detach()
            return
        with open(self.path, "rb") as file, decode_text(file) as stream:
            yield from _read_lines(stream)


def _copy_pipe(path: str) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the list
    with open(path, "rb") as pipe:
        while chunk := pipe.read(2**20):
            copy.write(chunk)
            if copy.tell() > MAX_PIPE_BYTES:
                raise DataError(f"the list {path} has more than {MAX_PIPE_BYTES / 1e9:.0f} GB; divide it.")
    return copy


def _read_lines(stream: io.TextIOWrapper) -> Iterator[tuple[str, str | None]]:
    number = 0
    while line := stream.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            while (rest := stream.readline(MAX_LINE)) and not rest.endswith("\n"):
                pass
            yield f"{line[:100]}...", f"line {number} has more than {MAX_LINE:,} characters, and is not a path."
        elif name := _strip_quotes(line.rstrip("\r\n")):
            yield name, None


def _strip_quotes(line: str) -> str:
    """Remove spaces and quotes around a path, unless a file has exactly this name."""
    stripped = line.strip()
    if (stripped != line or stripped[:1] == '"') and stripped and os.path.lexists(line):
        return line
    if len(stripped) > 2 and stripped[0] == stripped[-1] == '"' and not os.path.lexists(stripped):
        return stripped[1:-1]
    return stripped
