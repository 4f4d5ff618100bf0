"""Published weights, fetched from a server on this machine that behaves and misbehaves as asked."""

import contextlib
import functools
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

import ghostnets
from ghostnets.checkpoints import hub
from ghostnets.checkpoints.hub import WEIGHTS, HubFile, cache_path, download, find_weights, load_pretrained
from ghostnets.errors import CheckpointError, GhostNetsError, StorageError, UnknownNameError
from ghostnets.models import create_model, list_models

CONTENT = bytes(range(256)) * 20_000  # 5 MB
LAST_MODIFIED = 1_600_000_000.0


@dataclass
class Server:
    """What it serves, how, and what it was asked."""

    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_at: int | None = None  # of the whole file
    told_size: int | None = None
    content_type: str = "application/octet-stream"
    modified: float = LAST_MODIFIED
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.command, self.path, wanted))
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
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 5.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join(5)


def released(server: Server, **changes):
    """A row of the table whose file the local server has."""
    return replace(WEIGHTS["ghostnet_100"][1], location=f"{server.url}/files/weights.pth", **changes)


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def leave_partial(weights, content: bytes) -> Path:
    partial = partial_of(cache_path(weights))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content)
    return partial


def test_a_file_comes_whole_with_progress_and_then_from_the_cache(server: Server, tmp_path: Path):
    weights, seen = released(server, sha256=hashlib.sha256(CONTENT).hexdigest()[:8]), []
    path = download(weights, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "torch hub" / "checkpoints" / "weights.pth" == cache_path(weights)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert len(seen) > 1
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert download(weights) == path
    assert len(server.requests) == 1


def test_a_partial_is_continued(server: Server):
    weights = released(server)
    leave_partial(weights, CONTENT[:1_000_003])
    assert download(weights).read_bytes() == CONTENT
    assert server.requests == [("GET", "/files/weights.pth", "bytes=1000003-")]


def test_a_partial_is_dropped_where_the_server_has_no_ranges_or_another_file(server: Server):
    weights = released(server)
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


def test_a_truncated_transfer_is_told_and_continued_the_next_time(server: Server):
    weights = released(server)
    server.cut_at = 3_000_000
    with pytest.raises(CheckpointError, match=r"ended after 3000000 of 5120000 bytes"):
        download(weights)
    assert not cache_path(weights).exists()
    server.cut_at = None
    assert download(weights).read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=3000000-"


def test_a_wrong_hash_is_refused_and_nothing_of_it_kept(server: Server):
    weights = released(server, sha256="00000000")
    with pytest.raises(CheckpointError, match="SHA-256 begins with"):
        download(weights)
    assert not cache_path(weights).exists()
    assert partial_of(cache_path(weights)).stat().st_size == 0
    cache_path(weights).write_bytes(b"put here by hand")
    with pytest.raises(CheckpointError, match=r"weights\.pth is not what was published .* delete it"):
        download(weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 404}, "the server answers 404"),
        ({"status": 503}, "the server answers 503"),
        ({"told_size": 1_000_000_001}, "has 1000000001 bytes, allowed are 1000000000"),
        ({"content_type": "text/html; charset=utf-8"}, "a page or a stream, not a file"),
    ],
)
def test_what_the_server_may_answer_instead(server: Server, changes: dict, message: str):
    for name, value in changes.items():
        setattr(server, name, value)
    weights = released(server)
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert len(str(caught.value).splitlines()) == 1
    assert weights.url in str(caught.value)
    assert not cache_path(weights).exists()


def test_a_larger_file_is_not_read_past_what_was_told(server: Server):
    server.told_size = 1000
    assert download(released(server)).read_bytes() == CONTENT[:1000]


def test_without_a_network_the_sentence_names_the_address_and_the_place(server: Server):
    weights = replace(WEIGHTS["ghostnet_100"][1], location="http://127.0.0.1:9/weights.pth")
    with pytest.raises(CheckpointError) as caught:
        download(weights)
    message = str(caught.value)
    for part in ("http://127.0.0.1:9/weights.pth", str(cache_path(weights)), "without any request", "refused"):
        assert part in message
    assert "\n" not in message
    cache_path(weights).write_bytes(b"by hand")
    assert download(weights).read_bytes() == b"by hand"
    assert server.requests == []


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path):
    (tmp_path / "torch hub").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="TORCH_HOME"):
        download(released(server))


def test_two_at_once_fetch_it_once(server: Server):
    weights, paths = released(server), []
    threads = [threading.Thread(target=lambda: paths.append(download(weights))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 3
    assert len(server.requests) == 1
    assert list(paths[0].parent.iterdir()) == [paths[0]]


@pytest.fixture
def local_hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The hub's functions, asking the local server and keeping their files in a folder of the test."""
    cache = tmp_path / "hub"
    for name, arguments in {
        "hf_hub_url": {"endpoint": server.url},
        "hf_hub_download": {"endpoint": server.url, "cache_dir": cache},
        "try_to_load_from_cache": {"cache_dir": cache},
    }.items():
        monkeypatch.setattr(hub, name, functools.partial(getattr(huggingface_hub, name), **arguments))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return server


def test_a_file_of_the_hub_and_its_cache(local_hub: Server, tmp_path: Path):
    weights = replace(WEIGHTS["ghostnet_100"][0], location=HubFile("timm/small"))
    path = download(weights)
    assert path.read_bytes() == CONTENT
    assert tmp_path / "hub" in path.parents
    assert {path for _, path, _ in local_hub.requests} == {"/timm/small/resolve/main/model.safetensors"}
    local_hub.requests.clear()
    assert download(weights) == path
    assert local_hub.requests == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"status": 404}, "404"), ({"told_size": 2_000_000_000}, "2000000000 bytes, allowed are 1000000000")],
)
def test_what_the_hub_may_answer_instead(local_hub: Server, changes: dict, message: str):
    for name, value in changes.items():
        setattr(local_hub, name, value)
    weights = replace(WEIGHTS["ghostnet_100"][0], location=HubFile("timm/small"))
    with pytest.raises(CheckpointError, match=message) as caught:
        download(weights)
    assert "https://huggingface.co/timm/small/resolve/main/model.safetensors" in str(caught.value)
    assert [method for method, *_ in local_hub.requests] == ["HEAD"]


def test_without_the_hub_a_file_put_by_hand_is_used(local_hub: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "hf_hub_url", functools.partial(huggingface_hub.hf_hub_url, endpoint="http://127.0.0.1:9"))
    weights = WEIGHTS["ghostnet_100"][0]
    place = cache_path(weights)
    assert place.name == "timm--ghostnet_100.in1k--model.safetensors"
    with pytest.raises(CheckpointError, match=re.escape(str(place))) as caught:
        download(weights)
    assert "\n" not in str(caught.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert download(weights) == place
    assert local_hub.requests == []


@pytest.fixture
def published(local_hub: Server, randomize) -> torch.nn.Module:
    """The network whose weights the local hub has."""
    model = randomize(create_model("ghostnet_100"))
    local_hub.content = save(model.state_dict())
    return model


def test_load_pretrained_is_strict(published: torch.nn.Module):
    expected = published.state_dict()
    model = create_model("ghostnet_100")
    assert load_pretrained(model, "ghostnet_100") == WEIGHTS["ghostnet_100"][0]
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())

    small = create_model("ghostnet_100", num_classes=5)
    before = {key: tensor.clone() for key, tensor in small.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2 tensors \(classifier\.bias, classifier\.weight\); pass replace_head"):
        load_pretrained(small, "ghostnet_100")
    assert all(torch.equal(tensor, before[key]) for key, tensor in small.state_dict().items())

    load_pretrained(small, "ghostnet_100", replace_head=True)
    for key, tensor in small.state_dict().items():
        assert torch.equal(tensor, (before if key.startswith("classifier.") else expected)[key]), key

    grey = create_model("ghostnet_100", in_chans=1)
    with pytest.raises(CheckpointError, match=r"1 tensors \(conv_stem\.weight\); use create_model"):
        load_pretrained(grey, "ghostnet_100", replace_head=True)
    with pytest.raises(CheckpointError, match=r", \.\.\.\); use create_model"):
        load_pretrained(create_model("ghostnetv2_100"), "ghostnet_100", replace_head=True)


def test_create_model_with_weights(published: torch.nn.Module):
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model = ghostnets.create_model("ghostnet_100", pretrained=True).eval()
        torch.testing.assert_close(model(x), published(x), rtol=0, atol=0)
        own = ghostnets.create_model("ghostnet_100", pretrained="timm", num_classes=5).eval()
        assert own(x).shape == (1, 5)
        features = published.forward_features(x)
        torch.testing.assert_close(own.forward_features(x), features, rtol=0, atol=0)
        backbone = ghostnets.create_model("ghostnet_100", pretrained=True, features_only=True, out_indices=(-1,)).eval()
        torch.testing.assert_close(backbone(x)[0], features, rtol=0, atol=0)
    for arguments, message in [({"in_chans": 1}, "conv_stem"), ({"out_indices": (1,)}, "features_only")]:
        with pytest.raises(GhostNetsError, match=message):
            ghostnets.create_model("ghostnet_100", pretrained=True, **arguments)
    assert ghostnets.create_model("ghostnet_050", num_classes=2).num_classes == 2  # for which there may be none


def test_a_damaged_published_file_is_refused_even_with_a_new_head(published: torch.nn.Module, local_hub: Server):
    state = published.state_dict()
    del state["bn1.weight"]
    local_hub.content = save(state)
    with pytest.raises(CheckpointError, match=r"1 missing: bn1\.weight"):
        load_pretrained(create_model("ghostnet_100", num_classes=5), "ghostnet_100", replace_head=True)


def test_the_head_of_the_printed_port(server: Server, randomize, monkeypatch: pytest.MonkeyPatch):
    name = "ghostnet_100_printed_revised"
    monkeypatch.setitem(WEIGHTS, name, (released(server),))
    published = randomize(create_model(name))
    place = cache_path(WEIGHTS[name][0])
    place.parent.mkdir(parents=True)
    torch.save(published.state_dict(), place)
    model = create_model(name, num_classes=5)
    before = model.classifier[4].weight.clone()
    load_pretrained(model, name, replace_head=True)
    assert torch.equal(model.classifier[4].weight, before)
    assert torch.equal(model.classifier[0].weight, published.classifier[0].weight)


def test_finding_weights():
    assert find_weights("ghostnet_100").tag == "timm"
    assert find_weights("ghostnet_100", "official").top1 == 73.98
    with pytest.raises(UnknownNameError, match="did you mean official"):
        find_weights("ghostnet_100", "oficial")
    with pytest.raises(UnknownNameError, match="there is no model named"):
        find_weights("ghostnetv2_10")
    with pytest.raises(CheckpointError, match="no weights of ghostnet_050 are published"):
        find_weights("ghostnet_050")


def test_the_table():
    assert set(WEIGHTS) <= set(list_models())
    everything = [weights for rows in WEIGHTS.values() for weights in rows]
    for weights in everything:
        assert weights.url.startswith("https://")
        assert 0.5 < weights.top1 / 100 < (weights.top5 or 100) / 100
        assert round(weights.evaluation.image_size / weights.evaluation.crop_share) == 256
    assert len({cache_path(weights) for weights in everything}) == len(everything)
