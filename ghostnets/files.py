"""Writing a file so that it is either the old one or the new one, whole, whatever happens in between."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghostnets.errors import StorageError

__all__ = ["PARTIAL", "write_atomically", "write_text", "write_together"]

PARTIAL = ".partial"  # ends the names of files that are being written, or were when their process was killed


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on leaving, what was written there takes the place of ``path``.

    The bytes are on disk before the name changes, so a process killed or a machine switched off at any moment leaves
    the old file or the new one. On an error the temporary file is removed and the old one stays.

    Raises:
        StorageError: The disk is full, the folder cannot be written, ...
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
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that their owner alone can read
        temporary.replace(target)
        temporary = None
        _flush_to_disk(target.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {target} ({error.strerror or error}); nothing that stood there before was touched:"
            " free space or choose another folder, then run the same command again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def write_together(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder beside ``path``; on leaving, all that was written there moves to where ``path`` is.

    For files that belong together. What has the name of ``path`` moves last, and an older one is removed before
    anything moves: a process killed in between leaves the old files, the new ones, or no ``path``, but never ``path``
    with a companion of another version. On an error the folder is removed and the old files stay.

    Raises:
        StorageError: The disk is full, the folder cannot be written, ...
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
    """Writes ``text`` as UTF-8, atomically."""
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
