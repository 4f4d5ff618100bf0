"""Exclusive locks on files and folders between processes, released when the process ends for any reason."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

try:
    import fcntl
except ImportError:  # Windows, which cannot open folders either
    fcntl = None  # type: ignore[assignment]

__all__ = ["PathLock", "try_lock"]


class PathLock:
    """A lock held by this process; made by ``try_lock``.

    Where the system has ``flock``, the file or folder itself is locked, and nothing is written; elsewhere the file
    ``.NAME.lock`` next to it.
    """

    def __init__(self, path: Path, handle: int | None, lock_file: "FileLock | None") -> None:
        self._handle, self._lock_file = handle, lock_file
        self._status = path.stat() if handle is None else os.fstat(handle)

    def is_on(self, path: Path) -> bool:
        """Whether ``path`` is the locked file or folder: False once that is removed, renamed or replaced."""
        try:
            return os.path.samestat(self._status, path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Unlock; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._lock_file is not None:
            self._lock_file.release()
            with suppress(OSError):  # another process waits for it, and removes it
                os.unlink(self._lock_file.lock_file)  # noqa: PTH108
            self._lock_file = None


def try_lock(path: Path) -> PathLock | None:
    """Lock a file or folder; None if another process holds the lock.

    Raises:
        FileNotFoundError: The path does not exist.
    """
    while True:
        lock = _lock_file_next_to(path) if fcntl is None else _lock_itself(path)
        if lock is None or lock.is_on(path):
            return lock
        lock.release()  # the path was removed or replaced before it was locked


def _lock_itself(path: Path) -> PathLock | None:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return PathLock(path, handle, None)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise


def _lock_file_next_to(path: Path) -> PathLock | None:
    from filelock import FileLock, Timeout

    path.stat()
    lock_file = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    try:
        lock_file.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return PathLock(path, None, lock_file)
    except BaseException:
        lock_file.release()
        raise
