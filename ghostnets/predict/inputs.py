"""Image inputs as a stream: files, folders, globs, lists of paths, WebDataset shards.

A folder of ten million images takes no more memory than one of a million.
"""

import glob
import heapq
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ghostnets.errors import DataError, ImageError
from ghostnets.preprocessing import IMAGE_SUFFIXES, Pixels, Preprocessing

__all__ = ["Input", "find_files", "find_inputs", "read_input"]

NAMES_AT_ONCE = 1_000_000  # names held per folder; a larger folder is listed again for each further million
MAX_MEMBER_BYTES = 512 * 1024**2  # largest image in a shard, which is read whole


@dataclass(frozen=True, slots=True)
class Input:
    """One image, not read yet.

    Attributes:
        name: Name in the predictions: the path, or SHARD/MEMBER; escaped where it is not UTF-8.
        path: File that holds the image.
        offset: Offset of the image in a shard, in bytes.
        size: Size of the image in a shard, in bytes; None for a file of its own.
        error: Why the image cannot be read, or None.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None
    error: str | None = None


def find_inputs(arguments: Sequence[str | os.PathLike[str]]) -> Iterator[Input]:
    """Find the images that command-line arguments name, in their order.

    Args:
        arguments: Each an image file; a folder, for all images in it and its subfolders, sorted (names that begin with
            a dot and links to folders are skipped); a shard, ``*.tar``; a glob (``**`` for any depth) of these; or
            ``@FILE`` with one image path per line.

    Returns:
        The images. An image that turns out later to be missing or damaged, in a list or a shard, is an Input with
        ``error``.

    Raises:
        DataError: An argument does not exist, or holds no image; raised before the first image.
    """
    places = [place for argument in arguments for place in _places(os.fspath(argument))]
    for place in places:
        if next(_inside(place), None) is None:
            what = "holds no path" if place.startswith("@") else f"holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
            raise DataError(f"{place.removeprefix('@')} {what}.")
    return chain.from_iterable(map(_inside, places))


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Find image files: each path itself, or all images in a folder and its subfolders, as ``find_inputs``.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    return [Path(found.path) for found in find_inputs(paths)]


def read_input(source: Input, preprocessing: Preprocessing) -> Pixels:
    """Read an input with ``Preprocessing.pixels``, to uint8 (S, S, C). Raises ImageError."""
    if source.error is not None:
        raise ImageError(source.error)
    if source.size is None:
        return preprocessing.pixels(source.path, name=source.name)
    if source.size > MAX_MEMBER_BYTES:
        limit = f"{MAX_MEMBER_BYTES / 1e6:.0f} MB"
        raise ImageError(f"{source.name} has {source.size / 1e6:.0f} MB, the limit for an image in a shard is {limit}.")
    try:
        with open(source.path, "rb") as stream:
            stream.seek(source.offset)
            content = stream.read(source.size)
    except OSError as error:
        raise ImageError(f"{source.name} cannot be read ({error.strerror}).") from error
    return preprocessing.pixels(content, name=source.name)


def _places(argument: str) -> Iterator[str]:
    """Yield the argument itself, or the matches of a glob."""
    if Path(argument.removeprefix("@")).exists():
        yield argument
    elif not glob.has_magic(argument) or argument.startswith("@"):
        raise DataError(f"there is no image or folder {argument.removeprefix('@')}.")
    elif found := sorted(glob.iglob(argument, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
        yield from found
    else:
        raise DataError(f"nothing matches {argument}.")


def _inside(place: str) -> Iterator[Input]:
    if place.startswith("@"):
        return _listed(place.removeprefix("@"))
    if Path(place).is_dir():
        return _in_folder(str(Path(place)))
    if place.endswith(".tar"):
        return _in_shard(place)
    return iter([Input(_printable(place), place)])


def _listed(path: str) -> Iterator[Input]:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if name := line.rstrip("\r\n"):
                yield Input(_printable(name), name)


def _in_folder(root: str) -> Iterator[Input]:
    """Walk depth first, by name, which is the order of sorted paths."""
    open_folders = [(root, _entries(root))]
    while open_folders:
        folder, entries = open_folders[-1]
        try:
            name, is_folder = next(entries)
        except StopIteration:
            open_folders.pop()
        except OSError as error:
            open_folders.pop()
            yield Input(_printable(folder), folder, error=f"{_printable(folder)} cannot be listed ({error.strerror}).")
        else:
            path = f"{folder}/{name}"
            if is_folder:
                open_folders.append((path, _entries(path)))
            else:
                yield Input(_printable(path), path)


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the names of images and folders in a folder, sorted, with whether each is a folder."""
    last = ""
    while True:
        with os.scandir(folder) as entries:
            wanted = (
                (entry.name, is_folder)
                for entry in entries
                if entry.name > last and not entry.name.startswith(".")
                if (is_folder := entry.is_dir(follow_symlinks=False)) or (_is_image(entry.name) and entry.is_file())
            )
            block = heapq.nsmallest(NAMES_AT_ONCE, wanted)
        yield from block
        if len(block) < NAMES_AT_ONCE:
            return
        last = block[-1][0]


def _in_shard(path: str) -> Iterator[Input]:
    """Yield the images of an uncompressed tar, in its order, without reading their bytes."""
    damaged = (
        f"{_printable(path)} is not a tar archive, or is damaged or truncated; images may be missing: create it again."
    )
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps one per image
                if member.isreg() and _is_image(member.name):
                    yield Input(_printable(f"{path}/{member.name}"), path, member.offset_data, member.size)
            # A damaged header looks like the end, whose mark is a block of zeros.
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
                return
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        pass
    yield Input(_printable(path), path, error=damaged)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()
