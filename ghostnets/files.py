"""Atomic file writes: after a crash, each file is either the complete old one or the complete new one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghostnets.errors import StorageError

__all__ = ["PARTIAL", "write_atomically", "write_text", "write_together"]

PARTIAL = ".partial"  # suffix of files that are being written, or whose writer was killed


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to ``path`` on exit.

    The content is flushed to disk before the rename, so a crash at any time leaves the old file or the new one. If an
    exception is raised, the temporary file is removed and the old file is kept.

    Args:
        path: File to write; missing parent folders are created.

    Raises:
        StorageError: The disk is full, the folder is not writable, ...
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp creates files that only their owner can read
        temporary.replace(target)
        temporary = None
        _flush_to_disk(target.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {target} ({error.strerror or error}), and left an existing file unchanged; free space or"
            " choose another folder, then run the same command again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def write_together(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder and move all files written there to the folder of ``path`` on exit.

    For files that belong together. An existing ``path`` is removed before any file is moved, and its successor is moved
    last: a crash leaves the old files, the new files, or no ``path``, but never ``path`` beside a file of another
    version. If an exception is raised, the temporary folder is removed and the old files are kept.

    Args:
        path: Main file of those to write; missing parent folders are created.

    Raises:
        StorageError: The disk is full, the folder is not writable, ...
    """
    target = Path(path)
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
        yield folder
        written = sorted(folder.iterdir(), key=lambda file: file.name == target.name)
        for file in written:
            _flush_to_disk(file)
        if len(written) > 1:
            target.unlink(missing_ok=True)
        for file in written:
            file.replace(target.parent / file.name)
        _flush_to_disk(target.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {target} ({error.strerror or error}); free space or choose another folder, then run the"
            " same command again."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically.

    Raises:
        StorageError: The disk is full, the folder is not writable, ...
    """
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
