"""Writing a file so that it is either the old one or the new one, whole, whatever happens in between."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghostnets.errors import StorageError

__all__ = ["write_atomically", "write_text"]


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
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
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
