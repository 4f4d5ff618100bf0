"""Fetching a file of weights into the usual caches, once.

Files of the Hugging Face hub go through ``huggingface_hub`` and its cache, files of releases into torch hub's
(``torch.hub.get_dir()/checkpoints``). What is in a cache, or was put at ``cache_path`` by hand, is used without any
request.
"""

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import IO

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

from ghostnets.errors import CheckpointError, StorageError

__all__ = ["HUB_PREFIX", "Progress", "cache_path", "download", "web_address"]

HUB_PREFIX = "hf://"
MAX_BYTES = 1_000_000_000  # the largest file of the table has 130 MB
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0  # to connect, and for each piece

Progress = Callable[[int, int], None]


def cache_path(location: str) -> Path:
    """Where a released file is kept, and where any file may be put by hand."""
    if location.startswith(HUB_PREFIX):
        name = "--".join(_hub_file(location)).replace("/", "--")
    else:
        name = location.rpartition("/")[2]
    return Path(torch.hub.get_dir(), "checkpoints", name)


def web_address(location: str) -> str:
    """Where a browser finds the file."""
    if not location.startswith(HUB_PREFIX):
        return location
    repository, file = _hub_file(location)
    return f"https://huggingface.co/{repository}/resolve/main/{file}"


def download(location: str, *, sha256: str | None = None, progress: Progress | None = None) -> Path:
    """The file of weights at a location, fetched unless a cache has it.

    A released file is written beside its place and renamed when it is whole; what a broken transfer has left there is
    used by the next one.

    Args:
        location: ``hf://OWNER/REPOSITORY[/FILE]`` for a file of the hub, or the address of a released file, whose last
            part names it in the cache.
        sha256: First hexadecimal digits of the file's SHA-256, where they are published.
        progress: Called with the bytes that are here and those of the whole file, for a released file; the hub draws
            its own bar.

    Raises:
        CheckpointError: No network, no such file, a file that is not the published one, or one larger than 1 GB; the
            message names the address and where to put the file by hand.
        StorageError: The file could not be written.
    """
    path = cache_path(location)
    if path.exists():
        _check_hash(location, path, sha256)
        return path
    if location.startswith(HUB_PREFIX):
        return _from_hub(location)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of processes that want the same file, one fetches it
            if path.exists():
                partial.unlink(missing_ok=True)
                return path
            _transfer(location, file, progress)
            file.flush()
            try:
                _check_hash(location, partial, sha256)
            except CheckpointError:
                file.truncate(0)
                raise
            os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"could not write {path} ({error.strerror or error}); free space or set TORCH_HOME to another folder."
        ) from error
    return path


def _hub_file(location: str) -> tuple[str, str]:
    """Repository and file of a location on the hub."""
    owner, repository, file, *_ = [*location.removeprefix(HUB_PREFIX).split("/", 2), "", ""]
    if not owner or not repository:
        raise CheckpointError(
            f"{location} is no file of the hub; expected is hf://OWNER/REPOSITORY or hf://OWNER/REPOSITORY/FILE."
        )
    return f"{owner}/{repository}", file or "model.safetensors"


def _from_hub(location: str) -> Path:
    repository, name = _hub_file(location)
    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        size = get_hf_file_metadata(hf_hub_url(repository, name)).size
        if size is not None and size <= MAX_BYTES:
            return Path(hf_hub_download(repository, name))
    except Exception as error:  # the hub's HTTP library differs between its versions, and so do the errors
        raise _failure(location, _first_line(error)) from error
    raise _failure(location, f"the size told is {size} bytes, allowed are {MAX_BYTES}")


def _transfer(location: str, file: IO[bytes], progress: Progress | None) -> None:
    """Appends to ``file`` what it lacks of the released file."""
    done = os.fstat(file.fileno()).st_size
    request = urllib.request.Request(location, headers={"User-Agent": "ghostnets", "Accept-Encoding": "identity"})
    if done:
        written = os.fstat(file.fileno()).st_mtime
        request.add_header("Range", f"bytes={done}-")
        # Were the file replaced since then, its end would not go with our beginning.
        request.add_header("If-Unmodified-Since", formatdate(written, usegmt=True))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code in (
            http.HTTPStatus.PRECONDITION_FAILED,
            http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ):
            file.truncate(0)
            return _transfer(location, file, progress)
        raise _failure(location, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(location, _first_line(error)) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            done = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _failure(location, "the server sent another part than was asked for")
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal() or response.headers.get_content_maintype() == "text":
            raise _failure(location, "what the server sent is a page or a stream, not a file")
        total = done + int(length)
        if total > MAX_BYTES:
            raise _failure(location, f"the file has {total} bytes, allowed are {MAX_BYTES}")
        while done < total:
            try:
                piece = response.read(min(CHUNK_BYTES, total - done))
            except (OSError, http.client.HTTPException) as error:
                raise _failure(location, f"{_first_line(error)}, after {done} of {total} bytes") from error
            if not piece:
                raise _failure(location, f"the connection ended after {done} of {total} bytes")
            file.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
    return None


def _check_hash(location: str, path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        raise CheckpointError(
            f"{path} is not what was published at {web_address(location)}: its SHA-256 begins with"
            f" {digest[: len(sha256)]}, expected is {sha256}; delete it and try again."
        )


def _failure(location: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"could not fetch {web_address(location)} ({reason}); try again later, or fetch that address by other means"
        f" and save it as {cache_path(location)}: a file there is used without any request."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
