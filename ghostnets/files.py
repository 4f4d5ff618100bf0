"""Atomic writes: after a crash, a file, a group of files or a folder is the complete old one or the complete new one.

Unfinished files are named ``.NAME.*.partial`` or ``.NAME.partial`` next to their target. Their writer holds a lock on
them, so the next writer of the same target recognises those of a killed process, and removes them.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ghostnets.errors import StorageError
from ghostnets.locks import PathLock, try_lock

__all__ = [
    "PARTIAL",
    "check_writable",
    "complete_interrupted",
    "find_checkpoint",
    "relative_path",
    "remove_leftovers",
    "user_cache",
    "write_atomically",
    "write_folder",
    "write_text",
    "write_together",
]

PARTIAL = ".partial"  # suffix of files that are being written, or whose writer was killed
NO_FOLDER_FLUSH = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)  # on Windows, SMB and some FUSE systems
COMPLETE = ".complete"  # suffix of a folder whose files are written and flushed, and replace the old ones


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Checkpoint of a path that may be the folder of a training run: its ``best.safetensors``; else the path itself."""
    path = Path(path)
    if not path.is_dir():
        return path
    best = path / "best.safetensors"
    return best if best.is_file() or (path / "config.json").is_file() else path


def relative_path(path: str | os.PathLike[str]) -> str:
    """Path relative to the working folder, or the absolute one on another drive of Windows."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(Path(path).absolute())


def user_cache() -> Path:
    """Folder of this package's caches, in ``XDG_CACHE_HOME`` or, where that is not set or empty, in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ghostnets"


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
    with _storage_errors(target), _parent_folder(target):
        _remove_leftovers(target)
        temporary, lock = _create_temporary(target)
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            lock.release()
        _flush_to_disk(target.parent)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before its content is computed; an existing one stays.

    Raises:
        StorageError: The folder is not writable, or is no folder, ...
    """
    with suppress(_NotWritten), write_atomically(path):
        raise _NotWritten


class _NotWritten(Exception):  # noqa: N818
    """Raised to leave everything as it was."""


@contextmanager
def write_together(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder and move all files written there to the folder of ``path`` on exit.

    For files that belong together. Once all are flushed to disk, the temporary folder is renamed to
    ``.NAME.complete``; then an existing ``path`` is removed, the others are moved, and its successor last. A crash
    before the rename leaves the old files; after it, ``complete_interrupted`` or the next writer moves the rest, and
    until then ``path`` is missing, but it never coexists with a file of another version. If an exception is raised,
    the temporary folder is removed and the old files are kept.

    Args:
        path: Main file of those to write; missing parent folders are created.

    Raises:
        StorageError: The disk is full, the folder is not writable, another process writes ``path``, ...
    """
    target = Path(path)
    with _storage_errors(target), _parent_folder(target):
        complete_interrupted(target)
        with _temporary_folder(target) as folder:
            yield folder
            for file in folder.iterdir():
                _flush_to_disk(file)
            _flush_to_disk(folder)
            complete = folder.replace(_complete(target))
            _flush_to_disk(target.parent)
            _move_files(complete, target)


def complete_interrupted(path: str | os.PathLike[str]) -> None:
    """Move the files that a killed process had written completely by ``write_together``; else do nothing.

    Raises:
        OSError: They cannot be moved.
    """
    target = Path(path)
    folder = _complete(target)
    if not folder.is_dir():
        return
    try:
        lock = try_lock(folder)
    except FileNotFoundError:
        return  # its writer has moved the last file
    if lock is None:
        return  # its writer is alive
    try:
        _move_files(folder, target)
    finally:
        lock.release()


@contextmanager
def write_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder next to ``path`` and rename it to ``path`` on exit.

    An existing folder is renamed to ``.NAME.older.partial`` before, and then removed; the next writer completes what a
    crash between the two left. If an exception is raised, the temporary folder is removed and the old one is kept.

    Args:
        path: Folder to write; missing parent folders are created.

    Raises:
        StorageError: The disk is full, the folder is not writable, another process writes ``path``, ...
    """
    target = Path(path)
    older = target.with_name(f".{target.name}.older{PARTIAL}")
    with _storage_errors(target), _parent_folder(target):
        _complete_folder(target, older)
        with _temporary_folder(target) as folder:
            yield folder
            for file in (*folder.rglob("*"), folder):
                _flush_to_disk(file)
            folder.replace(_complete(target))
            _flush_to_disk(target.parent)
            _complete_folder(target, older)


def remove_leftovers(folder: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Remove temporary files of killed writers from a folder; those of living ones are locked, and stay.

    Args:
        folder: The folder.
        is_wanted: Name of a temporary file -> whether to remove it.
    """
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if entry.name.endswith(PARTIAL) and entry.is_file()]
    for path in found:
        if not is_wanted(path.name):
            continue
        with suppress(FileNotFoundError, PermissionError):  # its writer renamed it; it is another user's
            if (lock := try_lock(path)) is not None:
                path.unlink(missing_ok=True)
                lock.release()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically.

    Raises:
        StorageError: The disk is full, the folder is not writable, ...
    """
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {target} ({error.strerror or error}), and left an existing file unchanged; free space or"
            " choose another folder, then run the same command again."
        ) from error


@contextmanager
def _parent_folder(target: Path) -> Iterator[None]:
    """Create the folder of ``target``; if an exception is raised, remove what was created and is still empty."""
    created = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds other files
            for folder in created:
                folder.rmdir()
        raise


def _create_temporary(target: Path) -> tuple[Path, PathLock]:
    """Create and lock a temporary file next to ``target``."""
    while True:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        temporary.touch(exist_ok=False)  # mkstemp would create a file that only its owner can read
        with suppress(FileNotFoundError):  # another process has removed it as a leftover, or is about to
            if (lock := try_lock(temporary)) is not None:
                return temporary, lock


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary files of killed writers of ``target``."""
    prefix = f".{target.name}."
    remove_leftovers(
        target.parent, lambda name: name.startswith(prefix) and "." not in name[len(prefix) : -len(PARTIAL)]
    )


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Create and lock the temporary folder of ``target``, empty; remove it on exit if it still has its name."""
    folder = target.with_name(f".{target.name}{PARTIAL}")
    folder.mkdir(exist_ok=True)
    lock = try_lock(folder)
    if lock is None:
        raise StorageError(f"another process is writing {target}; wait for it, or choose another file.")
    try:
        for leftover in folder.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield folder
    finally:
        if lock.is_on(folder):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _complete(target: Path) -> Path:
    return target.with_name(f".{target.name}{COMPLETE}")


def _move_files(folder: Path, target: Path) -> None:
    """Move the files of a complete folder to their place, ``target`` last, and remove the folder."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == target.name)
    if len(files) > 1:
        target.unlink(missing_ok=True)
    for file in files:
        file.replace(target.parent / file.name)
    _flush_to_disk(target.parent)
    folder.rmdir()


def _complete_folder(target: Path, older: Path) -> None:
    """Put a complete folder in place of ``target``, and remove the older one, as far as that is not done."""
    folder = _complete(target)
    if folder.is_dir():
        if target.exists() and any(target.iterdir()):
            if older.exists():
                shutil.rmtree(older)
            target.replace(older)
        folder.replace(target)  # also of an empty folder
        _flush_to_disk(target.parent)
    if older.exists():
        shutil.rmtree(older)


def _flush_to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes no file opened to read
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_FOLDER_FLUSH:
            raise
