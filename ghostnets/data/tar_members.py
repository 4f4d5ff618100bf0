"""Members of uncompressed tar archives, with bounds that hold for any headers.

``tarfile`` follows negative sizes backwards, reads long names of any claimed size, and calls itself for every header of
a chain. Importable without torch.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ghostnets.errors import DataError

__all__ = ["TarMember", "open_regular", "walk_tar"]

BLOCK = tarfile.BLOCKSIZE
MAX_NAME_BYTES = 1 << 16  # per long name, and for all attributes of a member
MAX_CHAIN = 8  # headers in front of one member; tar writes two at most
PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, *PAX_TYPES)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in an archive.

    Attributes:
        name: Its path in the archive.
        offset: Its first byte in the archive.
        size: Its size in bytes.
    """

    name: str
    offset: int
    size: int


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file; raises OSError for a pipe or device, which might never end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(descriptor, "rb")  # IsADirectoryError for a folder
    if not os.path.isfile(descriptor):  # noqa: PTH113 - of an open file
        stream.close()
        raise OSError("it is a pipe, socket or device, not a regular file")
    return stream


def walk_tar(stream: BinaryIO, *, on_other: Callable[[str], object] = lambda _: None) -> Iterator[TarMember]:
    """Yield the regular files of a tar (ustar, GNU or pax), in its order, without reading their bytes.

    Args:
        stream: The archive.
        on_other: Callback with the name of each member that is neither a file nor a folder: a link, a device.

    Raises:
        DataError: The archive is damaged or truncated, or a header exceeds the bounds; raised after the
            preceding members were yielded.
        OSError: The file cannot be read.
    """
    end = stream.seek(0, os.SEEK_END)
    offset, chain = 0, 0
    attributes: dict[str, str] = {}
    while True:
        header = _read_header(stream, offset, end)
        if header is None:
            if chain:
                raise DataError("it ends after the header of a long name")
            return
        data, size = offset + BLOCK, _data_size(header, attributes)
        if not 0 <= size <= end - data:
            raise DataError(f"the member {header.name[:100]!r} claims {size} bytes, and {end - data} follow")
        if header.type in EXTENSIONS:
            chain += 1
            if chain > MAX_CHAIN:
                raise DataError(f"a member has more than {MAX_CHAIN} headers")
            attributes |= _read_extension(stream, header, data)
        else:
            name = attributes.get("path", header.name)
            if header.isreg() and "GNU.sparse.major" not in attributes:
                yield TarMember(name, data, size)
            elif not header.isdir():
                on_other(name)
            chain, attributes = 0, {}
        offset = data + -(-size // BLOCK) * BLOCK


def _read_header(stream: BinaryIO, offset: int, end: int) -> tarfile.TarInfo | None:
    """Header at an offset, or None at the end marker."""
    stream.seek(offset)
    block = stream.read(BLOCK)
    if block == bytes(BLOCK):
        return None
    if len(block) < BLOCK:
        raise DataError(f"it ends at byte {end} without the end marker")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"the header at byte {offset} is damaged ({error})") from error


def _data_size(header: tarfile.TarInfo, attributes: dict[str, str]) -> int:
    """Number of bytes behind a header that belong to it; links, folders and devices have none, whatever they claim."""
    if header.type == tarfile.GNUTYPE_SPARSE:
        raise DataError(f"the member {header.name[:100]!r} is a sparse file")
    if header.isreg():
        return int(attributes.get("size", header.size))
    return 0 if header.type in tarfile.SUPPORTED_TYPES and header.type not in EXTENSIONS else header.size


def _read_extension(stream: BinaryIO, header: tarfile.TarInfo, offset: int) -> dict[str, str]:
    """Attributes that a header gives to the member behind it; those of global and link headers are not needed."""
    if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        return {}
    if header.size > MAX_NAME_BYTES:
        raise DataError(f"a name or its attributes have {header.size} bytes")
    stream.seek(offset)
    content = stream.read(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    return _parse_pax(content)


def _parse_pax(content: bytes) -> dict[str, str]:
    r"""Parse records ``LENGTH KEY=VALUE\n`` of a pax header."""
    attributes = {}
    while content.rstrip(b"\0"):
        length = content[:8].partition(b" ")[0]
        end = int(length) if length.isdigit() else 0
        key, separator, value = content[len(length) + 1 : max(0, end - 1)].partition(b"=")
        if not separator:
            raise DataError("the attributes of a member are damaged")
        attributes[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        content = content[end:]
    if not attributes.get("size", "0").isdecimal():
        raise DataError(f"a member claims {attributes['size'][:30]!r} bytes")
    return attributes
