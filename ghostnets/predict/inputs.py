"""Image inputs as a stream: files, folders, globs, lists of paths, WebDataset shards.

A folder of ten million images takes no more memory than one of a million.
"""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ghostnets.data.finder import LeftOut, is_image_name, walk_images
from ghostnets.data.tar_members import open_regular, walk_tar
from ghostnets.errors import DataError, ImageError
from ghostnets.predict.globs import expand_glob
from ghostnets.predict.path_lists import PathList
from ghostnets.preprocessing import IMAGE_SUFFIXES, Pixels, Preprocessing
from ghostnets.terminal import printable

__all__ = ["Input", "find_files", "find_inputs", "read_content_of", "read_input"]

INDEX = "index.json"  # marks a folder of shards; ghostnets.data.shards needs torch
SHOWN_NAME = 300  # characters of a name in a message
MAX_MEMBER_BYTES = 512 * 1024**2  # largest image in a shard, which is read whole


@dataclass(frozen=True, slots=True)
class Input:
    """One image, not read yet.

    Attributes:
        name: Name in the predictions: the path, or SHARD/MEMBER; escaped where it is not UTF-8.
        path: File that holds the image.
        offset: Offset of the image in a shard, in bytes.
        size: Size of the image in a shard, in bytes; None for a separate file.
        error: Why the image cannot be read, or None.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None
    error: str | None = None


def find_inputs(arguments: Sequence[str | os.PathLike[str]], *, left_out: LeftOut | None = None) -> Iterator[Input]:
    """Find the images that command-line arguments name, in their order.

    Args:
        arguments: Each an image file; a folder, for all images in it and its subfolders, sorted (``data.finder``); a
            folder of shards; a shard, ``*.tar``; a glob (``**`` for any depth) of these; or ``@FILE`` with one image
            path per line (``path_lists``), also from a pipe.
        left_out: Counter of skipped paths, filled while the images are consumed.

    Returns:
        The images. An image that turns out later to be missing or damaged, in a list or a shard, is an Input with
        ``error``.

    Raises:
        DataError: An argument does not exist, or holds no image; raised before the first image.
    """
    counter = LeftOut() if left_out is None else left_out
    places = [place for argument in arguments for place in _places(os.fspath(argument), counter)]
    for place in places:
        seen = LeftOut()
        if next(_inside(place, seen), None) is None:
            raise DataError(_describe_empty(place, seen))
    return chain.from_iterable(_inside(place, counter) for place in places)


def _describe_empty(place: str | PathList, left_out: LeftOut) -> str:
    if isinstance(place, PathList):
        return f"{printable(place.path)} holds no path."
    more = "".join(f"; {sentence}" for sentence in left_out.sentences())
    return f"{printable(place)} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}){more}."


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Find image files: each path itself, or all images in a folder and its subfolders, as ``find_inputs``.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    return [Path(found.path) for found in find_inputs(paths)]


def read_input(source: Input, preprocessing: Preprocessing) -> Pixels:
    """Read an input with ``Preprocessing.pixels``, to uint8 (S, S, C). Raises ImageError."""
    return preprocessing.pixels(read_content_of(source), name=source.name)


def read_content_of(source: Input) -> str | bytes:
    """Return an input for ``preprocessing.decode``: the path of a file, or bytes. Raises ImageError."""
    if source.error is not None:
        raise ImageError(source.error)
    _check_regular(source)
    if source.size is None:
        return source.path
    if source.size > MAX_MEMBER_BYTES:
        limit = f"{MAX_MEMBER_BYTES / 1e6:.0f} MB"
        raise ImageError(f"{source.name} has {source.size / 1e6:.0f} MB, the limit for an image in a shard is {limit}.")
    try:
        with open(source.path, "rb") as stream:
            stream.seek(source.offset)
            return stream.read(source.size)
    except OSError as error:
        raise ImageError(f"{source.name} cannot be read ({error.strerror}).") from error


def _check_regular(source: Input) -> None:
    """Raise ImageError unless the path is a regular file: opening a pipe would wait for its writer."""
    name = source.name if len(source.name) <= SHOWN_NAME else f"{source.name[:SHOWN_NAME]}..."
    try:
        mode = Path(source.path).stat().st_mode
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {name}.") from error
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null character
        raise ImageError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise ImageError(f"{name} is {kind}, not an image file.")


def _places(argument: str, left_out: LeftOut) -> Iterator[str | PathList]:
    """Yield the argument itself, or the matches of a glob."""
    if os.path.exists(argument.removeprefix("@")):  # noqa: PTH110 - Path.exists raises for a name that is too long
        yield PathList(argument[1:]) if argument.startswith("@") else argument
    elif not glob.has_magic(argument) or argument.startswith("@"):
        name = printable(argument.removeprefix("@")[:SHOWN_NAME])
        advice = "; download it and give the file" if "://" in argument else ""
        raise DataError(f"there is no image or folder {name}{advice}.")
    elif found := list(expand_glob(argument, left_out)):
        yield from found
    else:
        raise DataError(f"nothing matches {argument}.")


def _inside(place: str | PathList, left_out: LeftOut) -> Iterator[Input]:
    if isinstance(place, PathList):
        return (
            Input(printable(name), name, error=f"{place.path}: {error}" if error else None)
            for name, error in place.read()
        )
    path = Path(place)
    if path.is_dir():
        if shards := _shards(path):
            return chain.from_iterable(_in_shard(shard, left_out) for shard in shards)
        return (Input(printable(one.path), one.path, error=one.error) for one in walk_images(str(path), left_out))
    if place.endswith(".tar") and path.is_file():
        return _in_shard(place, left_out)
    return iter([Input(printable(place), place)])


def _shards(folder: Path) -> list[str]:
    """Shards of a folder with the index that ``ghostnets shard`` writes."""
    return sorted(str(path) for path in folder.glob("*.tar")) if (folder / INDEX).is_file() else []


def _in_shard(path: str, left_out: LeftOut) -> Iterator[Input]:
    """Yield the images of an uncompressed tar, in its order, without reading their bytes."""
    try:
        with open_regular(path) as stream:
            others: list[str] = []
            for member in walk_tar(stream, on_other=others.append):
                if is_image_name(member.name):
                    yield Input(printable(f"{path}/{member.name}"), path, member.offset, member.size)
            for name in filter(is_image_name, others):
                left_out.add("a link or device in the archive", f"{path}/{name}")
    except (DataError, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        damaged = (
            f"{printable(path)} is not a tar archive, or is damaged or truncated ({printable(reason)}); images may be"
            " missing: create it again."
        )
        yield Input(printable(path), path, error=damaged)
