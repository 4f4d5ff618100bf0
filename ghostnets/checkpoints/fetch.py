"""Download of weights into the caches of Hugging Face and torch hub.

Files of the Hugging Face hub are downloaded by ``huggingface_hub`` into its cache, release files into that of torch hub
(``torch.hub.get_dir()/checkpoints``). A cached file, or one placed at ``cache_path`` by hand, is used without a network
request.
"""

import hashlib
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

from ghostnets.errors import CheckpointError, StorageError
from ghostnets.http_download import DownloadError, Progress, download_to

__all__ = [
    "HUB_PREFIX",
    "Progress",
    "cache_path",
    "check_reachable",
    "download",
    "find_cached",
    "web_address",
]

HUB_PREFIX = "hf://"
MAX_BYTES = 1_000_000_000  # the largest published file is 130 MB
TIMEOUT_SECONDS = 30.0  # for the connection, and for each chunk


def cache_path(location: str) -> Path:
    """Return the path at which a release file is cached, and at which any file may be placed by hand."""
    if location.startswith(HUB_PREFIX):
        name = "--".join(_hub_file(location)).replace("/", "--")
    else:
        name = location.rpartition("/")[2]
    return Path(torch.hub.get_dir(), "checkpoints", name)


def web_address(location: str) -> str:
    """Return the URL of a file, given its URL or its location on the hub (``hf://...``)."""
    if not location.startswith(HUB_PREFIX):
        return location
    repository, file = _hub_file(location)
    return f"https://huggingface.co/{repository}/resolve/main/{file}"


def download(location: str, *, sha256: str | None = None, progress: Progress | None = None) -> Path:
    """Download a file of weights, unless it is cached.

    A release file is written to a temporary file, which is renamed when complete; an interrupted download is resumed.

    Args:
        location: ``hf://OWNER/REPOSITORY[/FILE]`` for a file of the hub, or the URL of a release file, whose last
            component becomes its name in the cache.
        sha256: First hexadecimal digits of the file's SHA-256, if published.
        progress: Callback with the number of bytes downloaded and the total, for release files; the hub shows its own
            progress bar.

    Returns:
        Path of the local file.

    Raises:
        CheckpointError: The server or the file is unavailable, or the file differs from the published one or is larger
            than 1 GB; the message has the URL and the path at which to place the file by hand.
        StorageError: The file could not be written.
    """
    path = cache_path(location)
    if path.exists():
        _check_hash(location, path, sha256)
        return path
    if location.startswith(HUB_PREFIX):
        return _download_from_hub(location)
    partial, lock = (path.with_name(f"{path.name}{suffix}") for suffix in (".partial", ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One of several processes downloads the file, the others wait.
        with FileLock(lock), partial.open("ab") as file:
            if path.exists():
                partial.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                return path
            try:
                download_to(location, file, max_bytes=MAX_BYTES, timeout=TIMEOUT_SECONDS, progress=progress)
            except DownloadError as error:
                raise _download_error(location, str(error)) from error
            file.flush()
            try:
                _check_hash(location, partial, sha256)
            except CheckpointError:
                file.truncate(0)
                raise
            os.fsync(file.fileno())
            partial.replace(path)
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"could not write {path} ({error.strerror or error}); free space or set TORCH_HOME to another folder."
        ) from error
    return path


def find_cached(location: str) -> Path | None:
    """Return the path of a cached file, without a network request; None if it is not cached."""
    path = cache_path(location)
    if path.exists():
        return path
    cached = try_to_load_from_cache(*_hub_file(location)) if location.startswith(HUB_PREFIX) else None
    return Path(cached) if isinstance(cached, str) else None


def check_reachable(location: str, *, seconds: float) -> None:
    """Check that a file exists on its server, within ``seconds`` including name resolution.

    Raises:
        CheckpointError: The server does not answer in time or lacks the file, or HF_HUB_OFFLINE is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise CheckpointError(f"{web_address(location)} is not cached, and HF_HUB_OFFLINE is set.")
    outcome: list[BaseException | None] = []

    def request() -> None:
        try:
            if location.startswith(HUB_PREFIX):
                get_hf_file_metadata(hf_hub_url(*_hub_file(location)), timeout=2 * seconds)
            else:
                head = urllib.request.Request(location, method="HEAD", headers={"User-Agent": "ghostnets"})
                urllib.request.urlopen(head, timeout=2 * seconds).close()
        except Exception as error:  # versions of huggingface_hub use different HTTP libraries and errors
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=request, daemon=True)  # name resolution has no limit of its own
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise CheckpointError(f"{web_address(location)} does not answer within {seconds:g} s.")
    if outcome[0] is not None:
        raise CheckpointError(f"{web_address(location)} cannot be downloaded ({_first_line(outcome[0])}).")


def _hub_file(location: str) -> tuple[str, str]:
    """Return the repository and the file name of a location on the hub."""
    owner, repository, file, *_ = [*location.removeprefix(HUB_PREFIX).split("/", 2), "", ""]
    if not owner or not repository:
        raise CheckpointError(
            f"{location} is not a location on the hub; expected hf://OWNER/REPOSITORY or hf://OWNER/REPOSITORY/FILE."
        )
    return f"{owner}/{repository}", file or "model.safetensors"


def _download_from_hub(location: str) -> Path:
    repository, name = _hub_file(location)
    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        size = get_hf_file_metadata(hf_hub_url(repository, name)).size
        if size is not None and size <= MAX_BYTES:
            return Path(hf_hub_download(repository, name))
    except Exception as error:  # versions of huggingface_hub use different HTTP libraries and errors
        raise _download_error(location, _first_line(error)) from error
    raise _download_error(location, f"the reported size is {size} bytes, the limit is {MAX_BYTES}")


def _check_hash(location: str, path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        raise CheckpointError(
            f"{path} differs from the file published at {web_address(location)}: its SHA-256 begins with"
            f" {digest[: len(sha256)]}, expected {sha256}; delete it and try again."
        )


def _download_error(location: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"could not download {web_address(location)} ({reason}); try again later, or download it by other means and"
        f" save it as {cache_path(location)}: a file at that path is used without a network request."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
