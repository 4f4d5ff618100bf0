"""Files of weights, fetched from a server on this machine that behaves and misbehaves as asked."""

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


def test_a_file_comes_whole_with_progress_and_then_from_the_cache(server, tmp_path: Path):
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


def test_a_partial_is_continued(server):
    weights = address(server)
    leave_partial(weights, CONTENT[:1_000_003])
    assert download(weights).read_bytes() == CONTENT
    assert server.requests == [("GET", "/files/weights.pth", "bytes=1000003-")]


def test_a_partial_is_dropped_where_the_server_has_no_ranges_or_another_file(server):
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


def test_a_truncated_transfer_is_told_and_continued_the_next_time(server):
    weights = address(server)
    server.cut_at = 3_000_000
    with pytest.raises(CheckpointError, match=r"ended after 3000000 of 5120000 bytes"):
        download(weights)
    assert not cache_path(weights).exists()
    server.cut_at = None
    assert download(weights).read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=3000000-"


def test_a_wrong_hash_is_refused_and_nothing_of_it_kept(server):
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
def test_what_the_server_may_answer_instead(server, changes: dict, message: str):
    for name, value in changes.items():
        setattr(server, name, value)
    weights = address(server)
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert len(str(caught.value).splitlines()) == 1
    assert web_address(weights) in str(caught.value)
    assert not cache_path(weights).exists()


def test_a_larger_file_is_not_read_past_what_was_told(server):
    server.told_size = 1000
    assert download(address(server)).read_bytes() == CONTENT[:1000]


def test_without_a_network_the_sentence_names_the_address_and_the_place(server):
    weights = "http://127.0.0.1:9/weights.pth"
    with pytest.raises(CheckpointError) as caught:
        download(weights)
    message = str(caught.value)
    for part in ("http://127.0.0.1:9/weights.pth", str(cache_path(weights)), "without a request", "refused"):
        assert part in message
    assert "\n" not in message
    cache_path(weights).write_bytes(b"by hand")
    assert download(weights).read_bytes() == b"by hand"
    assert server.requests == []


def test_a_cache_that_cannot_be_written(server, tmp_path: Path):
    (tmp_path / "torch hub").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="TORCH_HOME"):
        download(address(server))


def test_two_at_once_fetch_it_once(server):
    weights, paths = address(server), []
    threads = [threading.Thread(target=lambda: paths.append(download(weights))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 3
    assert len(server.requests) == 1
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_a_file_of_the_hub_and_its_cache(local_hub, tmp_path: Path):
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
def test_what_the_hub_may_answer_instead(local_hub, changes: dict, message: str):
    for name, value in changes.items():
        setattr(local_hub, name, value)
    weights = "hf://timm/small"
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert "https://huggingface.co/timm/small/resolve/main/model.safetensors" in str(caught.value)
    assert [method for method, *_ in local_hub.requests] == ["HEAD"]


def test_without_the_hub_a_file_put_by_hand_is_used(local_hub, monkeypatch: pytest.MonkeyPatch):
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


def test_a_reference_to_the_hub(local_hub):
    assert web_address("hf://timm/a") == "https://huggingface.co/timm/a/resolve/main/model.safetensors"
    assert web_address("hf://timm/a/b/c.h5") == "https://huggingface.co/timm/a/resolve/main/b/c.h5"
    assert cache_path("hf://timm/a/b/c.h5").name == "timm--a--b--c.h5"
    for wrong in ("hf://", "hf://timm", "hf:///a"):
        with pytest.raises(CheckpointError, match="is not a location on the hub; expected hf://OWNER/REPOSITORY"):
            download(wrong)
    assert local_hub.requests == []
