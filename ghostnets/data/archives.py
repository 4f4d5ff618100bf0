"""Data sets in an archive, local or at a URL: downloaded once, unpacked once, into the cache of this package.

Importable without torch.
"""

import bz2
import gzip
import hashlib
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock

from ghostnets.data.finder import is_image_name
from ghostnets.data.tar_members import open_regular, walk_tar
from ghostnets.errors import DataError, StorageError
from ghostnets.files import user_cache, write_folder
from ghostnets.http_download import DownloadError, Progress, download_to
from ghostnets.terminal import escape_control, printable

__all__ = ["archive_suffix", "cache_folder", "find_unpacked", "open_archive", "unpacking_notes"]

OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".tbz2": bz2.open,
    ".xz": lzma.open,
    ".txz": lzma.open,
}
SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar", ".zip")
REMOTE = ("http://", "https://")
MAX_BYTES = 200 * 10**9  # per download; ImageNet's training images are 138 GB
MAX_RATIO = 50  # unpacked bytes per byte of the archive; images barely compress
ALWAYS_ALLOWED = 2**30  # unpacked bytes that are allowed at any ratio
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 3
CHUNK = 2**20

AnyPath = TypeVar("AnyPath", bound=PurePath)

DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)


def archive_suffix(data: str) -> str | None:
    """Suffix of the archive at a path or URL, such as ``".tar.gz"``; None if it is not an archive."""
    path = urlsplit(data).path if data.startswith(REMOTE) else data
    return next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), None)


def open_archive(data: str, *, progress: Progress | None = None) -> Path:
    """Download and unpack an archive, unless the cache holds it.

    An interrupted download is resumed by the next call. Only regular files are unpacked; ``unpacking_notes`` lists
    skipped members.

    Args:
        data: Path or URL; a URL may end with ``#sha256=DIGITS``, which are checked.
        progress: Callback with the bytes downloaded and their total.

    Returns:
        The folder of its files, or the tar itself if it is in WebDataset format.

    Raises:
        DataError: It cannot be downloaded, is damaged or encrypted, differs from its digest, unpacks to more than is
            plausible, or names a file outside its folder.
        StorageError: The disk is full, or the cache cannot be written.
    """
    suffix = archive_suffix(data)
    assert suffix is not None
    url, _, fragment = data.partition("#") if data.startswith(REMOTE) else (data, "", "")
    if not data.startswith(REMOTE) and suffix == ".tar" and _holds_samples(Path(data)):
        return Path(data).resolve()
    folder = _place(url, suffix)
    kept = folder.with_name(f"{folder.name}.tar")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # one process unpacks, concurrent ones wait
            if folder.is_dir() or kept.exists():
                return folder if folder.is_dir() else kept
            if not data.startswith(REMOTE):
                _unpack(Path(data), suffix, folder, name=data)
                return folder
            partial = folder.with_name(f"{folder.name}.partial")
            _download(url, partial, fragment, progress)
            try:
                if suffix == ".tar" and _holds_samples(partial):
                    return partial.replace(kept)
                _unpack(partial, suffix, folder, name=url)
            except DataError:  # damaged: the next call downloads it again
                partial.unlink()
                raise
            partial.unlink()
            return folder
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {folder} ({error.strerror or error}); free space, or set XDG_CACHE_HOME to another"
            " folder."
        ) from error


def unpacking_notes(folder: Path) -> list[str]:
    """Return sentences on the members of the archive that were not unpacked into a folder of ``open_archive``."""
    notes = _notes_file(folder)
    return notes.read_text(encoding="utf-8").splitlines() if notes.is_file() else []


def _notes_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.left_out")


def find_unpacked(data: str) -> Path | None:
    """Folder in the cache to which ``open_archive`` has unpacked an archive; None if it has not."""
    suffix = archive_suffix(data)
    if suffix is None or not (data.startswith(REMOTE) or Path(data).is_file()):
        return None
    folder = _place(data.partition("#")[0], suffix)
    return next((path for path in (folder, folder.with_name(f"{folder.name}.tar")) if path.exists()), None)


def _place(url: str, suffix: str) -> Path:
    """Folder in the cache of an archive at a URL, or at a path, by its size and time."""
    if url.startswith(REMOTE):
        key, name = url, PurePosixPath(urlsplit(url).path).name
    else:
        status = Path(url).stat()
        key, name = f"{Path(url).resolve()}\0{status.st_size}\0{status.st_mtime_ns}", Path(url).name
    return cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:16] / (name[: -len(suffix)] or "data")


def cache_folder() -> Path:
    """Folder of unpacked data sets."""
    return user_cache() / "archives"


def _download(url: str, partial: Path, fragment: str, progress: Progress | None) -> None:
    expected = fragment.removeprefix("sha256=").lower() if fragment.startswith("sha256=") else None
    for attempt in range(1, ATTEMPTS + 1):
        with partial.open("ab") as file:
            try:
                download_to(url, file, max_bytes=MAX_BYTES, timeout=TIMEOUT_SECONDS, progress=progress)
                break
            except DownloadError as error:
                done = file.tell()
                if attempt == ATTEMPTS or not done:
                    kept = f" The {done:,} bytes so far are kept, and the same command continues." if done else ""
                    raise DataError(
                        f"{url} could not be downloaded ({error}); check the address and the network, or download it by"
                        f" other means and give its path.{kept}"
                    ) from error
    if expected is not None:
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not expected or not digest.startswith(expected):
            partial.unlink()
            raise DataError(
                f"the SHA-256 of {url} is {digest}, expected {expected or 'digits'}; check the address and the digits."
            )


def _holds_samples(path: Path) -> bool:
    """Whether a tar has an image and a label of the same key (WebDataset)."""
    images, labels = set(), set()
    try:
        with open_regular(path) as file:
            for member in walk_tar(file):
                folder, _, name = member.name.rpartition("/")
                key = (folder, name.partition(".")[0])
                if is_image_name(member.name):
                    images.add(key)
                elif name.endswith((".cls", ".json")):
                    labels.add(key)
    except (OSError, DataError) as error:
        raise DataError(f"the tar {path} cannot be read ({error}).") from error
    return not images.isdisjoint(labels)


def _unpack(archive: Path, suffix: str, folder: Path, *, name: str) -> None:
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size)
    left_out: list[str] = []
    try:
        with write_folder(folder) as target:
            if suffix == ".zip":
                left_out += _unpack_zip(archive, target, limit)
            elif suffix == ".tar":
                with open_regular(archive) as file:
                    left_out += _unpack_tar(file, target, limit)
            else:
                with _decompress(archive, suffix, limit, target.parent) as file:
                    left_out += _unpack_tar(file, target, limit)
            if left_out:
                number = f", the first of {len(left_out)}" if len(left_out) > 1 else ""
                kind = "a link or device in the archive"
                note = f"left out: {escape_control(left_out[0][:200], keep='')} ({kind}{number})"
                _notes_file(folder).write_text(note, encoding="utf-8")
    except DAMAGED as error:  # a DataError is a ValueError
        raise DataError(f"the archive {name} cannot be unpacked ({error}); download it again.") from error


def _unpack_zip(archive: Path, target: Path, limit: int) -> list[str]:
    """Unpack the regular files; return the names of the others."""
    with zipfile.ZipFile(archive) as file:
        found = [info for info in file.infolist() if not info.is_dir()]
        members = [info for info in found if _is_regular(info)]
        _check_total(sum(info.file_size for info in members), limit, target)
        for info in members:
            with file.open(info) as stream:
                _write(stream, info.file_size, target, info.filename)
    return [info.filename for info in found if not _is_regular(info)]


def _is_regular(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG)


def _unpack_tar(file: BinaryIO, target: Path, limit: int) -> list[str]:
    """Unpack the regular files; return the names of the others."""
    others: list[str] = []
    members = list(walk_tar(file, on_other=others.append))
    _check_total(sum(member.size for member in members), limit, target)
    for member in members:
        file.seek(member.offset)
        _write(file, member.size, target, member.name)
    return others


def _check_total(total: int, limit: int, target: Path) -> None:
    if total > limit:
        raise DataError(f"it unpacks to {total:,} bytes, the limit for its size is {limit:,}")
    free = shutil.disk_usage(target).free
    if total > free:
        raise StorageError(
            f"{target.parent} has {free:,} bytes free, the archive unpacks to {total:,}; free space, or set"
            " XDG_CACHE_HOME to another folder."
        )


def _member_path(target: AnyPath, name: str) -> AnyPath:
    """Path of a member in the folder of its archive; raises DataError for a name outside of it."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    path = target.joinpath(*parts)  # on Windows a part such as "C:name" is on another drive
    is_inside = path.is_relative_to(target) and path != target and ".." not in parts
    if not is_inside or name.startswith("/") or parts[0].endswith(":"):
        raise DataError(f"it names {printable(name)[:200]!r}, outside its own folder")
    return path


def _write(stream: IO[bytes], size: int, target: Path, name: str) -> None:
    """Write a member under its name, which must be inside ``target`` and new."""
    path = _member_path(target, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"it holds {printable(name)[:200]!r} twice") from error
    with file:
        left = size
        while left:
            block = stream.read(min(CHUNK, left))
            if not block:
                raise DataError(f"{printable(name)[:200]!r} ends early")
            file.write(block)
            left -= len(block)


@contextmanager
def _decompress(archive: Path, suffix: str, limit: int, folder: Path) -> Iterator[BinaryIO]:
    """Decompress a tar to a temporary file."""
    opener = OPENERS[suffix.removeprefix(".tar")]
    with tempfile.TemporaryFile(dir=folder) as copy, opener(archive, "rb") as stream:
        try:
            while block := stream.read(CHUNK):
                copy.write(block)
                if copy.tell() > limit:
                    raise DataError(f"it unpacks to more than {limit:,} bytes, the limit for its size")
        except OSError as error:
            if error.errno is not None:
                raise
            raise DataError(str(error)) from error  # gzip and bz2 say so of damaged data
        yield copy
