"""Random access to the samples of shards: opened on demand, downloaded if remote, closed when unused."""

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
ATTEMPTS = 4  # to download a file
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 2**20


class OpenShard:
    """An open tar file on disk, closed when it is no longer referenced.

    Args:
        descriptor: File descriptor.
        members: Name, offset and size in bytes of each image in it.
    """

    def __init__(self, descriptor: int, members: list[tuple[str, int, int]]) -> None:
        self.descriptor, self.members = descriptor, members

    def __del__(self) -> None:
        os.close(self.descriptor)


class ShardFiles:
    """Samples of tar files by index. Thread-safe; each process opens its own files.

    Args:
        files: Path or URL, size in bytes and number of samples of each file.
        open_at_once: Largest number of open files; the least recently read are closed first. A downloaded copy is an
            unlinked file, so that it vanishes with the process, however that ends.
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
            name, offset, size = opened.members[index]
            return os.pread(opened.descriptor, size, offset), f"{self.files[shard][0]}:{name}"

    def _open(self, shard: int) -> OpenShard:
        location, size, samples = self.files[shard]
        try:
            descriptor = _download(location, size) if location.startswith(REMOTE) else os.open(location, os.O_RDONLY)
            opened = OpenShard(descriptor, [])
            os.lseek(descriptor, 0, os.SEEK_SET)
            with os.fdopen(os.dup(descriptor), "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                opened.members += [(m.name, m.offset_data, m.size) for m in tar if not m.name.endswith(".cls")]
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"the shard {location} cannot be read ({error}); write the shards again.") from error
        found = os.fstat(descriptor).st_size
        if len(opened.members) != samples or found != size:
            raise DataError(
                f"the shard {location} has {len(opened.members)} images in {found} bytes, the index says {samples}"
                f" in {size}; write the shards again."
            )
        return opened


def join(root: str, name: str) -> str:
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
                text: str = response.read().decode()
                return text
        return Path(location).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(f"there are no shards: {location} cannot be read ({error}); check the path or URL.") from error


def _download(location: str, size: int) -> int:
    """Download a file; returns the descriptor of an unlinked copy."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ghostnets" / "shards"
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
