"""Download a file over HTTP, resuming a partial download."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from typing import IO

__all__ = ["DownloadError", "Progress", "download_to"]

CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Callback with the number of bytes downloaded and the total."""


class DownloadError(Exception):
    """A download failed; the message is the reason, as a clause without full stop."""


def download_to(url: str, file: IO[bytes], *, max_bytes: int, timeout: float, progress: Progress | None = None) -> None:
    """Download into an open file, resuming after its current content.

    Args:
        url: Address, http or https.
        file: Binary file, open for appending.
        max_bytes: Largest size of the whole file.
        timeout: Timeout of the connection and of each read, in seconds.
        progress: Callback called after each chunk.

    Raises:
        DownloadError: The server cannot be reached or has no such file; or the response is a page, a stream, or larger
            than ``max_bytes``.
        OSError: The file could not be written.
    """
    done = os.fstat(file.fileno()).st_size
    request = urllib.request.Request(url, headers={"User-Agent": "ghostnets", "Accept-Encoding": "identity"})
    if done:
        written = os.fstat(file.fileno()).st_mtime
        request.add_header("Range", f"bytes={done}-")
        # If the file has changed on the server, the server sends all of it.
        request.add_header("If-Unmodified-Since", formatdate(written, usegmt=True))
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        is_beyond = done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if is_beyond and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # the file is complete
        if is_beyond or (done and error.code == http.HTTPStatus.PRECONDITION_FAILED):
            file.truncate(0)
            download_to(url, file, max_bytes=max_bytes, timeout=timeout, progress=progress)
            return
        raise DownloadError(f"the server responded {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DownloadError(_first_line(error)) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            done = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise DownloadError("the server sent another range than requested")
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal() or response.headers.get_content_maintype() == "text":
            raise DownloadError("the server sent a page or a stream, not a file")
        total = done + int(length)
        if total > max_bytes:
            raise DownloadError(f"the file has {total} bytes, the limit is {max_bytes}")
        while done < total:
            try:
                chunk = response.read(min(CHUNK_BYTES, total - done))
            except (OSError, http.client.HTTPException) as error:
                raise DownloadError(f"{_first_line(error)}, after {done} of {total} bytes") from error
            if not chunk:
                raise DownloadError(f"the connection ended after {done} of {total} bytes")
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
