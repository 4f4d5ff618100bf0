"""Exclusive locks on files and folders against other processes, which end with the process however that ends."""

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
    ``.NAME.lock`` beside it.
    """

    def __init__(self, path: Path, handle: int | None, beside: "FileLock | None") -> None:
        self._handle, self._beside = handle, beside
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
        if self._beside is not None:
            self._beside.release()
            with suppress(OSError):  # another process waits for it, and removes it
                os.unlink(self._beside.lock_file)  # noqa: PTH108
            self._beside = None


def try_lock(path: Path) -> PathLock | None:
    """Lock a file or folder; None if another process holds the lock.

    Raises:
        FileNotFoundError: There is no such path.
    """
    while True:
        lock = _lock_beside(path) if fcntl is None else _lock_itself(path)
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


def _lock_beside(path: Path) -> PathLock | None:
    from filelock import FileLock, Timeout

    path.stat()
    beside = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    try:
        beside.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return PathLock(path, None, beside)
    except BaseException:
        beside.release()
        raise
