"""The files behind shards: opened when they are needed, fetched where they are elsewhere, and let go again."""

import os
import shutil
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from pathlib import Path

from ghostnets.errors import DataError

__all__ = ["REMOTE", "ShardFiles", "join", "read_index"]

REMOTE = ("http://", "https://")
ATTEMPTS = 4  # to fetch a file
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**20


class OpenShard:
    """A tar file on this machine, closed when nobody reads in it any more.

    Args:
        descriptor: Of the open file.
        places: Name, offset and size of each image in it.
    """

    def __init__(self, descriptor: int, places: list[tuple[str, int, int]]) -> None:
        self.descriptor, self.places = descriptor, places

    def __del__(self) -> None:
        os.close(self.descriptor)


class ShardFiles:
    """Samples of tar files by number. Threads may read at the same time, and processes have files of their own.

    Args:
        files: Path or address, size in bytes and number of samples of each.
        open_at_once: When more are needed, those that were read least recently are closed. A copy of a file from
            elsewhere has no name, so that it goes with the process, however that ends.
    """

    def __init__(self, files: list[tuple[str, int, int]], *, open_at_once: int) -> None:
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

    def read(self, shard: int, place: int) -> tuple[bytes, str]:
        """The image number ``place`` of a shard: bytes of its file, and what to call it.

        Raises:
            DataError: The shard is missing, damaged, or not the one of the index.
        """
        if self.process != os.getpid():
            self._reset()  # descriptors and locks of the parent are not ours
        with self.lock:
            turn = self.opening.setdefault(shard, threading.Lock())
        with turn:
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
            name, offset, size = opened.places[place]
            return os.pread(opened.descriptor, size, offset), f"{self.files[shard][0]}:{name}"

    def _open(self, shard: int) -> OpenShard:
        location, size, samples = self.files[shard]
        try:
            descriptor = _fetch(location, size) if location.startswith(REMOTE) else os.open(location, os.O_RDONLY)
            opened = OpenShard(descriptor, [])
            os.lseek(descriptor, 0, os.SEEK_SET)
            with os.fdopen(os.dup(descriptor), "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                opened.places += [(m.name, m.offset_data, m.size) for m in tar if not m.name.endswith(".cls")]
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"the shard {location} cannot be read ({error}); write the shards again.") from error
        found = os.fstat(descriptor).st_size
        if len(opened.places) != samples or found != size:
            raise DataError(
                f"the shard {location} has {len(opened.places)} images in {found} bytes, the index says {samples}"
                f" in {size}; write the shards again."
            )
        return opened


def join(root: str, name: str) -> str:
    """Path or address of a file of the shards."""
    return f"{root.rstrip('/')}/{name}"


def read_index(location: str) -> str:
    """The text at a path or address.

    Raises:
        DataError: It cannot be had.
    """
    try:
        if location.startswith(REMOTE):
            with urllib.request.urlopen(location, timeout=TIMEOUT) as answer:
                text: str = answer.read().decode()
                return text
        return Path(location).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(f"there are no shards: {location} cannot be read ({error}); check the address.") from error


def _fetch(location: str, size: int) -> int:
    """Descriptor of a nameless copy of the file at an address."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ghostnets" / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.5 * 2**attempt)
        with tempfile.TemporaryFile(dir=cache) as file:
            try:
                with urllib.request.urlopen(location, timeout=TIMEOUT) as answer:
                    shutil.copyfileobj(answer, file, CHUNK)
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
            problem = f"{file.tell()} bytes came, the index says {size}"
    raise DataError(f"the shard {location} could not be fetched ({problem}); check the address and the network.")
