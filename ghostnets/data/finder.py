"""The search for image files in a folder: one set of rules for training, evaluation, prediction, shards and export.

Hidden files and those that systems create (``._x.jpg``, ``__MACOSX``, ``Thumbs.db``, ...) are skipped. Links are
followed, except into a folder that is read anyway, so that no image comes twice and no loop is walked. Everything else
that is left out is counted in ``LeftOut`` and named once. Importable without torch.
"""

import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from ghostnets.preprocessing import IMAGE_SUFFIXES
from ghostnets.terminal import printable

__all__ = [
    "FoundImage",
    "LeftOut",
    "holds_image",
    "is_image_name",
    "is_system_name",
    "relative_name",
    "walk_folders",
    "walk_images",
]

NAMES_AT_ONCE = 1_000_000  # names held per folder; a larger folder is listed again for each further million

SYSTEM_NAMES = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "lost+found", "@eadir",
        "system volume information",
    }
)  # fmt: skip
OTHER_IMAGE_SUFFIXES = frozenset(
    {
        ".arw", ".avifs", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heics", ".hif",
        ".ico", ".j2k", ".jp2", ".jpe", ".jxl", ".nef", ".orf", ".pcx", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
        ".xcf",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file that was found, not opened yet.

    Attributes:
        path: Path, starting with the folder of the search.
        error: Why it cannot be read, or None.
        is_folder: Whether it is a folder, which cannot be listed.
    """

    path: str
    error: str | None = None
    is_folder: bool = False


class LeftOut:
    """Counts the paths that a search skips, by reason, with an example of each.

    ``sentences`` names every reason once.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.other: Counter[str] = Counter()

    def add(self, reason: str, path: str) -> None:
        """Count ``path`` under a reason such as ``"link into a folder that is read anyway"``."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, printable(path))

    def add_file(self, path: str) -> None:
        """Count a file whose name has no readable suffix."""
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in OTHER_IMAGE_SUFFIXES:
            self.add(f"{suffix} file that cannot be read; convert it to JPEG or PNG", path)
        else:
            self.other[printable(suffix) or "without suffix"] += 1

    def sentences(self) -> list[str]:
        """One sentence per reason; empty if nothing was left out."""
        found = []
        for reason, count in self.counts.items():
            number = "" if count == 1 else f", the first of {count}"
            found.append(f"left out: {self.examples[reason]} ({reason}{number})")
        if self.other:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in self.other.most_common(5))
            more = ", ..." if len(self.other) > 5 else ""
            total = self.other.total()
            files = "1 file that is not an image" if total == 1 else f"{total} files that are not images"
            found.append(f"left out: {files} ({kinds}{more})")
        return found


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden or made by an operating system, and is skipped without a message."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image_name(path: str) -> bool:
    """Whether a file is read, by the suffix and the folders of its path: ``a/b.JPG``, not ``__MACOSX/b.jpg``."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES and not any(map(is_system_name, parts))


def walk_images(root: str, left_out: LeftOut) -> Iterator[FoundImage]:
    """Find the images in a folder and its subfolders, depth first and sorted by name, as sorted paths are.

    Memory is bounded by ``NAMES_AT_ONCE`` names and the number of folders. A link to a missing file and a folder that
    cannot be listed are found with ``error``.

    Args:
        root: The folder.
        left_out: Counter of skipped paths.
    """
    real_root = os.path.realpath(root)
    visited = {_identity(root)}
    open_folders = [(root, _list_sorted(root, left_out))]
    while open_folders:
        folder, entries = open_folders[-1]
        try:
            name, kind = next(entries)
        except StopIteration:
            open_folders.pop()
            continue
        except OSError as error:
            open_folders.pop()
            yield FoundImage(folder, f"{printable(folder)} cannot be listed ({error.strerror}).", is_folder=True)
            continue
        path = f"{folder.rstrip('/')}/{name}"
        if kind == "missing":
            yield FoundImage(path, f"{printable(path)} is a link to a file that does not exist.")
        elif kind == "file":
            yield FoundImage(path)
        elif kind == "link" and _is_read_anyway(os.path.realpath(path), real_root):
            left_out.add("link into a folder that is read anyway", path)
        elif (identity := _identity(path)) in visited:
            left_out.add("the same folder as one already read", path)
        else:
            visited.add(identity)
            open_folders.append((path, _list_sorted(path, left_out)))


def walk_folders(root: str, left_out: LeftOut) -> Iterator[str]:
    """Find a folder and its subfolders, depth first and sorted by name, each once, and without hidden ones.

    Args:
        root: The folder.
        left_out: Counter of folders that cannot be listed, and of links to folders that are visited anyway.
    """
    real_root = os.path.realpath(root)
    visited = {_identity(root)}
    pending = [root]
    while pending:
        folder = pending.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.is_symlink()) for entry in entries if entry.is_dir()]
        except OSError as error:
            left_out.add(f"folder that cannot be listed: {error.strerror}", folder)
            continue
        inner = []
        for name, is_link in sorted(found):
            path = f"{folder.rstrip('/')}/{name}"
            if is_system_name(name):
                continue
            if is_link and _is_read_anyway(os.path.realpath(path), real_root):
                left_out.add("link into a folder that is read anyway", path)
            elif (identity := _identity(path)) in visited:
                left_out.add("the same folder as one already read", path)
            else:
                visited.add(identity)
                inner.append(path)
        pending += reversed(inner)


def holds_image(folder: str) -> bool:
    """Whether a folder or one of its subfolders holds an image; also True for a folder that cannot be listed."""
    pending, visited = [folder], {_identity(folder)}
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if is_system_name(entry.name):
                        continue
                    if not entry.is_dir():
                        if PurePosixPath(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                            return True
                    elif (identity := _identity(entry.path)) not in visited:
                        visited.add(identity)
                        pending.append(entry.path)
        except OSError:  # the search that follows names it
            return True
    return False


def _is_read_anyway(target: str, root: str) -> bool:
    """Whether a resolved path is the root, an ancestor of it, or a folder in it that the search visits."""
    path, top = Path(target), Path(root)
    if top.is_relative_to(path):
        return True
    return path.is_relative_to(top) and not any(map(is_system_name, path.relative_to(top).parts))


def relative_name(path: str, folder: str | os.PathLike[str]) -> str:
    """Path of a file relative to a folder that it is in, with slashes on every system."""
    return PurePath(os.path.relpath(path, folder)).as_posix()


def _identity(folder: str) -> tuple[int, int]:
    """Device and inode; (-1, -1) for a folder that has vanished, whose listing fails next."""
    try:
        status = Path(folder).stat()
    except OSError:
        return -1, -1
    return status.st_dev, status.st_ino


def _list_sorted(folder: str, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Yield the names of images and folders in a folder, sorted, with their kind (``_kind``)."""
    last = ""
    counter = left_out  # files are counted in the first listing alone
    while True:
        with os.scandir(folder) as entries:
            block = heapq.nsmallest(NAMES_AT_ONCE, _wanted(entries, folder, last, counter))
        yield from block
        if len(block) < NAMES_AT_ONCE:
            return
        last, counter = block[-1][0], LeftOut()


def _wanted(
    entries: Iterator["os.DirEntry[str]"], folder: str, last: str, left_out: LeftOut
) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if (entry.name <= last and last) or is_system_name(entry.name):
            continue
        kind = _kind(entry)
        if kind in ("folder", "link"):
            yield entry.name, kind
        elif PurePosixPath(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
            left_out.add_file(f"{folder}/{entry.name}")
        elif kind == "special":
            left_out.add("neither a file nor a folder but a pipe, socket or device", f"{folder}/{entry.name}")
        else:
            yield entry.name, kind


def _kind(entry: "os.DirEntry[str]") -> str:
    """``"file"``, ``"folder"``, ``"link"`` (to a folder), ``"missing"`` (a dangling link) or ``"special"``."""
    if not entry.is_symlink():
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "special"
    try:
        mode = entry.stat().st_mode
    except OSError:  # the target is missing, or a loop of links
        return "missing"
    return "link" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"
