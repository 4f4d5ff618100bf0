"""Download of weights from a local server that can simulate failures."""

import functools
import hashlib
import re
import threading
from pathlib import Path

import huggingface_hub
import pytest
from local_server import hub_fixture, server_fixture  # noqa: F401

from ghostnets.checkpoints import cache_path, download, fetch
from ghostnets.checkpoints.fetch import web_address
from ghostnets.errors import CheckpointError, StorageError

CONTENT = bytes(range(256)) * 20_000  # what the server has, 5 MB
LAST_MODIFIED = 1_600_000_000.0
HUB_FILE = "hf://timm/ghostnet_100.in1k"


def address(server) -> str:
    return f"{server.url}/files/weights.pth"


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def leave_partial(weights, content: bytes) -> Path:
    partial = partial_of(cache_path(weights))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content)
    return partial


def test_download_reports_progress_then_uses_cache(server, tmp_path: Path):
    weights, seen = address(server), []
    path = download(
        weights, sha256=hashlib.sha256(CONTENT).hexdigest()[:8], progress=lambda done, total: seen.append((done, total))
    )
    assert path == tmp_path / "torch hub" / "checkpoints" / "weights.pth" == cache_path(weights)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert len(seen) > 1
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert download(weights) == path
    assert len(server.requests) == 1


def test_download_resumes_partial_file(server):
    weights = address(server)
    leave_partial(weights, CONTENT[:1_000_003])
    assert download(weights).read_bytes() == CONTENT
    assert server.requests == [("GET", "/files/weights.pth", "bytes=1000003-")]


def test_complete_partial_file_is_not_downloaded_again(server):
    weights = address(server)
    leave_partial(weights, CONTENT)
    assert download(weights).read_bytes() == CONTENT
    assert server.requests == [("GET", "/files/weights.pth", f"bytes={len(CONTENT)}-")]


def test_download_restarts_without_range_support_or_for_changed_file(server):
    weights = address(server)
    leave_partial(weights, b"x" * 1000)
    server.ranges = False
    path = download(weights)
    assert path.read_bytes() == CONTENT
    for partial, modified in [(b"x" * 1000, 4e9), (CONTENT + b"more", LAST_MODIFIED)]:
        server.ranges, server.modified = True, modified
        server.requests.clear()
        path.unlink()
        partial_of(path).write_bytes(partial)
        assert download(weights).read_bytes() == CONTENT
        assert [wanted for *_, wanted in server.requests] == [f"bytes={len(partial)}-", None]


def test_truncated_transfer_raises_and_is_resumed(server):
    weights = address(server)
    server.cut_at = 3_000_000
    with pytest.raises(CheckpointError, match=r"ended after 3000000 of 5120000 bytes"):
        download(weights)
    assert not cache_path(weights).exists()
    server.cut_at = None
    assert download(weights).read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=3000000-"


def test_wrong_hash_raises_and_keeps_nothing(server):
    weights = address(server)
    with pytest.raises(CheckpointError, match="SHA-256 begins with"):
        download(weights, sha256="00000000")
    assert not cache_path(weights).exists()
    assert partial_of(cache_path(weights)).stat().st_size == 0
    cache_path(weights).write_bytes(b"put here by hand")
    with pytest.raises(CheckpointError, match=r"weights\.pth differs from the file published .* delete it"):
        download(weights, sha256="00000000")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 404}, "the server responded 404"),
        ({"status": 503}, "the server responded 503"),
        ({"told_size": 1_000_000_001}, "has 1000000001 bytes, the limit is 1000000000"),
        ({"content_type": "text/html; charset=utf-8"}, "a page or a stream, not a file"),
    ],
)
def test_unusable_responses_raise(server, changes: dict, message: str):
    for name, value in changes.items():
        setattr(server, name, value)
    weights = address(server)
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert len(str(caught.value).splitlines()) == 1
    assert web_address(weights) in str(caught.value)
    assert not cache_path(weights).exists()


def test_download_reads_no_more_than_announced_size(server):
    server.told_size = 1000
    assert download(address(server)).read_bytes() == CONTENT[:1000]


def test_offline_error_names_url_and_cache_path(server):
    weights = "http://127.0.0.1:9/weights.pth"
    with pytest.raises(CheckpointError) as caught:
        download(weights)
    message = str(caught.value)
    for part in ("http://127.0.0.1:9/weights.pth", str(cache_path(weights)), "without a network request", "refused"):
        assert part in message
    assert "\n" not in message
    cache_path(weights).write_bytes(b"by hand")
    assert download(weights).read_bytes() == b"by hand"
    assert server.requests == []


def test_unwritable_cache_raises(server, tmp_path: Path):
    (tmp_path / "torch hub").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="TORCH_HOME"):
        download(address(server))


def test_concurrent_downloads_fetch_once(server):
    weights, paths = address(server), []
    threads = [threading.Thread(target=lambda: paths.append(download(weights))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 3
    assert len(server.requests) == 1
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_hub_file_is_cached(local_hub, tmp_path: Path):
    weights = "hf://timm/small"
    path = download(weights)
    assert path.read_bytes() == CONTENT
    assert tmp_path / "hub" in path.parents
    assert {path for _, path, _ in local_hub.requests} == {"/timm/small/resolve/main/model.safetensors"}
    local_hub.requests.clear()
    assert download(weights) == path
    assert local_hub.requests == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"status": 404}, "404"), ({"told_size": 2_000_000_000}, "2000000000 bytes, the limit is 1000000000")],
)
def test_unusable_hub_responses_raise(local_hub, changes: dict, message: str):
    for name, value in changes.items():
        setattr(local_hub, name, value)
    weights = "hf://timm/small"
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert "https://huggingface.co/timm/small/resolve/main/model.safetensors" in str(caught.value)
    assert [method for method, *_ in local_hub.requests] == ["HEAD"]


def test_file_placed_by_hand_is_used_offline(local_hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        fetch, "hf_hub_url", functools.partial(huggingface_hub.hf_hub_url, endpoint="http://127.0.0.1:9")
    )
    weights = HUB_FILE
    place = cache_path(weights)
    assert place.name == "timm--ghostnet_100.in1k--model.safetensors"
    with pytest.raises(CheckpointError, match=re.escape(str(place))) as caught:
        download(weights)
    assert "\n" not in str(caught.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert download(weights) == place
    assert local_hub.requests == []


def test_invalid_hub_location_raises(local_hub):
    assert web_address("hf://timm/a") == "https://huggingface.co/timm/a/resolve/main/model.safetensors"
    assert web_address("hf://timm/a/b/c.h5") == "https://huggingface.co/timm/a/resolve/main/b/c.h5"
    assert cache_path("hf://timm/a/b/c.h5").name == "timm--a--b--c.h5"
    for wrong in ("hf://", "hf://timm", "hf:///a"):
        with pytest.raises(CheckpointError, match="is not a location on the hub; expected hf://OWNER/REPOSITORY"):
            download(wrong)
    assert local_hub.requests == []
