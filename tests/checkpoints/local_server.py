"""Local HTTP server that can simulate failures, and the hub's functions redirected to it."""

import contextlib
import functools
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch

from ghostnets.checkpoints import fetch

CONTENT = bytes(range(256)) * 20_000  # 5 MB
LAST_MODIFIED = 1_600_000_000.0


@dataclass
class Server:
    """Content and behaviour of the server, and the requests that it received."""

    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_at: int | None = None  # of the whole file
    told_size: int | None = None
    content_type: str = "application/octet-stream"
    modified: float = LAST_MODIFIED
    delay: float = 0.0  # seconds before a response
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture(name="server")
def server_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.respond(body=False)

        def do_GET(self) -> None:
            self.respond(body=True)

        def respond(self, *, body: bool) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.command, self.path, wanted))
            time.sleep(state.delay)
            status, start = state.status, 0
            if wanted and state.ranges and status == 200:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                since = self.headers.get("If-Unmodified-Since")
                if since and state.modified > parsedate_to_datetime(since).timestamp():
                    status = 412
                else:
                    status = 206 if start < len(state.content) else 416
            if status not in (200, 206):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status == 416:
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            self.send_response(status)
            size = len(state.content) if state.told_size is None else state.told_size
            self.send_header("Content-Length", str(size - start))
            self.send_header("Content-Type", state.content_type)
            self.send_header("ETag", f'"{hashlib.sha256(state.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that has read enough hangs up
                self.wfile.write(state.content[start : state.cut_at] if body else b"")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch hub"))
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 5.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join(5)


@pytest.fixture(name="local_hub")
def hub_fixture(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The hub's functions, redirected to the local server and a temporary cache."""
    cache = tmp_path / "hub"
    for name, arguments in {
        "hf_hub_url": {"endpoint": server.url},
        "hf_hub_download": {"endpoint": server.url, "cache_dir": cache},
        "try_to_load_from_cache": {"cache_dir": cache},
    }.items():
        monkeypatch.setattr(fetch, name, functools.partial(getattr(huggingface_hub, name), **arguments))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return server
