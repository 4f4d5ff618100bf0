"""Random access to the samples of shards: opened on demand, downloaded if remote, closed when unused."""

import os
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from typing import BinaryIO

from ghostnets.data.tar_members import TarMember, open_regular, walk_tar
from ghostnets.errors import DataError
from ghostnets.files import user_cache

__all__ = ["REMOTE", "ShardFiles", "join_location", "read_index"]

REMOTE = ("http://", "https://")
ATTEMPTS = 4  # to download a file
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**20
MAX_INDEX_BYTES = 2**30  # some 30 million images
MAX_LABEL_BYTES = 32


class OpenShard:
    """An open tar file on disk, closed when it is no longer referenced.

    Args:
        descriptor: File descriptor.
        members: Images in it.
    """

    def __init__(self, descriptor: int, members: list[TarMember]) -> None:
        self.descriptor, self.members = descriptor, members

    def __del__(self) -> None:
        os.close(self.descriptor)


class ShardFiles:
    """Samples of tar files by index. Thread-safe; each process opens its own files.

    Args:
        files: Path or URL, size in bytes and labels of each file.
        open_at_once: Maximum number of open files; the least recently read are closed first. A downloaded copy is an
            unlinked file, so that it vanishes with the process, however that ends.
    """

    def __init__(self, files: list[tuple[str, int, tuple[int, ...]]], *, open_at_once: int) -> None:
        self.files, self.open_at_once = files, open_at_once
        self._reset()

    def _reset(self) -> None:
        self.process = os.getpid()
        self.shards: OrderedDict[int, OpenShard] = OrderedDict()
        self.opening: dict[int, threading.Lock] = {}
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"files": self.files, "open_at_once": self.open_at_once}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, shard: int, index: int) -> tuple[bytes, str]:
        """Read image ``index`` of a shard: the bytes of its file, and a name for messages.

        Raises:
            DataError: The shard is missing, damaged, or does not match the index file.
        """
        if self.process != os.getpid():
            self._reset()  # descriptors and locks belong to the parent process
        with self.lock:
            shard_lock = self.opening.setdefault(shard, threading.Lock())
        with shard_lock:
            with self.lock:
                opened = self.shards.get(shard)
                if opened is not None:
                    self.shards.move_to_end(shard)
            if opened is None:
                opened = self._open(shard)
                with self.lock:
                    self.shards[shard] = opened
                    while len(self.shards) > self.open_at_once:
                        self.shards.popitem(last=False)
            member = opened.members[index]
            return _read_at(opened.descriptor, member), f"{self.files[shard][0]}:{member.name}"

    def _open(self, shard: int) -> OpenShard:
        location, size, labels = self.files[shard]
        try:
            if location.startswith(REMOTE):
                descriptor = _download(location, size)
            else:
                with open_regular(location) as file:
                    descriptor = os.dup(file.fileno())
            opened = OpenShard(descriptor, [])
            with os.fdopen(os.dup(descriptor), "rb") as file:
                images, classes = _samples(file)
        except (OSError, DataError) as error:
            raise DataError(f"the shard {location} cannot be read ({error}); write the shards again.") from error
        opened.members += images
        found = os.fstat(descriptor).st_size
        if len(images) != len(labels) or found != size:
            raise DataError(
                f"the shard {location} has {len(images)} images in {found} bytes, the index says {len(labels)}"
                f" in {size}; write the shards again."
            )
        for member, label in zip(images, labels, strict=True):
            if classes.get(_key(member.name)) != str(label).encode():
                raise DataError(
                    f"the shard {location} gives {member.name} another class than the index; write the shards again."
                )
        return opened


def _read_at(descriptor: int, member: TarMember) -> bytes:
    """Read a member of a file that no other thread reads meanwhile; ``os.pread`` is missing on Windows."""
    os.lseek(descriptor, member.offset, os.SEEK_SET)
    return os.read(descriptor, member.size)


def _samples(file: BinaryIO) -> tuple[list[TarMember], dict[str, bytes]]:
    """Images of a shard, and the content of its ``.cls`` members by key."""
    images, classes = [], {}
    for member in walk_tar(file):
        if member.name.endswith(".cls"):
            file.seek(member.offset)
            classes[_key(member.name)] = file.read(min(member.size, MAX_LABEL_BYTES)).strip()
        else:
            images.append(member)
    return images, classes


def _key(name: str) -> str:
    """Key of the sample that a member belongs to, as in WebDataset: its name up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def join_location(root: str, name: str) -> str:
    """Path or URL of a file of the shards."""
    return f"{root.rstrip('/')}/{name}"


def read_index(location: str) -> str:
    """Read the index at a path or URL.

    Raises:
        DataError: It cannot be read.
    """
    try:
        if location.startswith(REMOTE):
            with urllib.request.urlopen(location, timeout=TIMEOUT) as response:
                return _read_text(response)
        with open_regular(location) as file:
            return _read_text(file)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(f"there are no shards: {location} cannot be read ({error}); check the path or URL.") from error


def _read_text(stream: BinaryIO) -> str:
    content = stream.read(MAX_INDEX_BYTES + 1)
    if len(content) > MAX_INDEX_BYTES:
        raise ValueError(f"it has more than {MAX_INDEX_BYTES} bytes")
    return content.decode()


def _download(location: str, size: int) -> int:
    """Download a file; returns the descriptor of an unlinked copy."""
    cache = user_cache() / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.5 * 2**attempt)
        with tempfile.TemporaryFile(dir=cache) as file:
            try:
                with urllib.request.urlopen(location, timeout=TIMEOUT) as response:
                    shutil.copyfileobj(response, file, CHUNK)
            except (OSError, ValueError) as error:
                problem = str(error)
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                    if error.code < 500:
                        break
                continue
            file.flush()
            if file.tell() == size:
                return os.dup(file.fileno())
            problem = f"got {file.tell()} bytes, the index says {size}"
    raise DataError(f"the shard {location} could not be downloaded ({problem}); check the URL and the network.")
