"""Shards: the images of the folder, each once per epoch, from disk and over HTTP."""

import functools
import http.server
import json
import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_images

from ghostnets.data import Augmentation, DataSpec, ShardFolder, TrainingBatches, open_folder, shard_files, write_shards
from ghostnets.data.source import summarize_source
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    make_images(root / "train", classes={"a": 30, "b": 17}, size=(18, 16))
    make_images(root / "test", classes={"a": 2, "b": 3})
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    out = tmp_path_factory.mktemp("shards") / "out"
    return write_shards(open_folder(folder), out, images_per_shard=4)[0]


def test_shards_hold_the_images_of_the_folder(folder: Path, shards: ShardFolder):
    ours, theirs = shards.load(PREPROCESSING), open_folder(folder).load(PREPROCESSING)
    assert (shards.class_names, shards.typical_size, shards.channels) == (("a", "b"), 16, 3)
    assert shards.num_images == 52
    assert (shards.common_size, ours.train.common_size) == (None, None)
    for split in ("train", "val", "test"):
        a, b = getattr(ours, split), getattr(theirs, split)
        as_set = [
            sorted((int(label), image.numpy().tobytes()) for image, label in zip(images, images.labels, strict=True))
            for images in (a, b)
        ]
        assert as_set[0] == as_set[1]
    assert len(shards.splits["train"]) == 10
    assert DataSpec(shards.root).open() == shards


def test_members_are_pairs_of_image_and_class(shards: ShardFolder):
    with tarfile.open(Path(shards.root, "val-000000.tar")) as tar:
        names = [member.name for member in tar]
        classes = [int(tar.extractfile(name).read()) for name in names[1::2]]
    assert names[:4] == ["000000000.png", "000000000.cls", "000000001.png", "000000001.cls"]
    assert classes == list(shards.splits["val"][0].labels)


def test_streaming_order_has_every_image_once_window_by_window(shards: ShardFolder, monkeypatch: pytest.MonkeyPatch):
    from ghostnets.data import shards as module

    monkeypatch.setattr(module, "WINDOW", 3)
    images = shards.load(PREPROCESSING).train
    orders = [images.streaming_order(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()
    assert sorted(orders[0].tolist()) == list(range(len(images)))
    of = torch.repeat_interleave(torch.arange(10), images.sizes)
    for window in (orders[0][:12], orders[0][12:24]):
        assert len(of[window].unique()) in (3, 4)  # the last shard is not full
        assert window.tolist() != window.sort().values.tolist()


def test_ranks_and_start_step_together_give_every_image_once(shards: ShardFolder):
    images = shards.load(PREPROCESSING).train
    options = {"batch_size": 6, "seed": 3, "epoch": 2}
    whole = [b.indices.tolist() for b in TrainingBatches(images, Augmentation(16, None), **options).stream()]
    assert len({i for batch in whole for i in batch}) == 36
    halves = [TrainingBatches(images, Augmentation(16, None), rank=rank, world_size=2, **options) for rank in (0, 1)]
    again = [a.indices.tolist() + b.indices.tolist() for a, b in zip(*(h.stream(2) for h in halves), strict=True)]
    assert again == whole[2:]
    with pytest.raises(ConfigurationError, match="cannot be class_balanced"):
        TrainingBatches(images, None, class_balanced=True, **options)


def test_open_shards_are_bounded_and_not_pickled(shards: ShardFolder):
    images = shards.load(PREPROCESSING).train
    images.files.open_at_once = 2
    first = [images[i] for i in range(len(images))]
    assert len(images.files.shards) == 2
    copied = pickle.loads(pickle.dumps(images))
    assert len(copied.files.shards) == 0
    assert all(torch.equal(a, copied[i]) for i, a in enumerate(first))


class Server(http.server.SimpleHTTPRequestHandler):
    failures = 0

    def do_GET(self) -> None:
        if Server.failures and self.path.endswith(".tar"):
            Server.failures -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(shards: ShardFolder) -> Iterator[str]:
    handler = functools.partial(Server, directory=shards.root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_shards_over_http_are_those_on_disk(
    shards: ShardFolder, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shard_files.time, "sleep", lambda seconds: None)
    far, near = DataSpec(address).open().load(PREPROCESSING).train, shards.load(PREPROCESSING).train
    Server.failures = 2
    batches = [TrainingBatches(images, Augmentation(16, None), batch_size=6, seed=3, epoch=2) for images in (far, near)]
    for a, b in zip(*(b.stream() for b in batches), strict=True):
        assert torch.equal(a.pixels, b.pixels)
    assert not list(tmp_path.rglob("*.tar"))  # copies are unlinked
    Server.failures = 99
    with pytest.raises(DataError, match=r"train-000000.tar could not be downloaded \(HTTP Error 503"):
        DataSpec(address).open().load(PREPROCESSING).train[0]
    Server.failures = 0
    with pytest.raises(DataError, match="there are no shards"):
        DataSpec(address + "/elsewhere").open()


def test_damage_and_misuse_raise_one_sentence(folder: Path, tmp_path: Path):
    source = open_folder(folder)
    shards, _ = write_shards(source, tmp_path / "out", images_per_shard=30)
    with pytest.raises(DataError, match="already exists"):
        write_shards(source, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="images_per_shard is 0"):
        write_shards(source, tmp_path / "new", images_per_shard=0)
    shard = tmp_path / "out" / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="write the shards again"):
        shards.load(PREPROCESSING).train[0]
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        shards.load(PREPROCESSING).train[0]
    for text in ("{", '{"version": 1}', json.dumps({"version": 9}), "[]"):
        (tmp_path / "out" / "index.json").write_text(text)
        with pytest.raises(DataError):
            DataSpec(tmp_path / "out").open()


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["parts"]["train"][0]["labels"].append(2),
        lambda index: index["parts"]["train"][0]["labels"].append(-1),
        lambda index: index["parts"]["train"][0]["labels"].append("1"),
        lambda index: index["parts"]["train"][0].update(file="../secret.tar"),
        lambda index: index["parts"]["train"][0].update(file="/etc/passwd"),
        lambda index: index["parts"]["train"][0].update(bytes=-1),
        lambda index: index["parts"].pop("val"),
        lambda index: index["parts"].update(other=[]),
        lambda index: index.update(class_names=[]),
        lambda index: index.update(class_names="ab"),
        lambda index: index.update(channels=7),
        lambda index: index.update(typical_size=10**9),
        lambda index: index.update(common_size=[0, 5]),
        lambda index: index.update(common_size=[1]),
    ],
    ids=range(14),
)
def test_index_with_a_hostile_value_is_rejected(shards: ShardFolder, tmp_path: Path, change: Callable[[Any], Any]):
    index = json.loads(Path(shards.root, "index.json").read_text())
    change(index)
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="write the shards again"):
        DataSpec(tmp_path).open()


def test_deeply_nested_index_is_rejected(tmp_path: Path):
    (tmp_path / "index.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="write the shards again"):
        DataSpec(tmp_path).open()


def test_shard_with_other_labels_than_the_index_is_rejected(shards: ShardFolder, tmp_path: Path):
    copied = tmp_path / "copied"
    shutil.copytree(shards.root, copied)
    index = json.loads((copied / "index.json").read_text())
    labels = index["parts"]["train"][0]["labels"]
    labels[0] = 1 - labels[0]
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="another class than the index"):
        DataSpec(copied).open().load(PREPROCESSING).train[0]


def test_pipe_instead_of_a_shard_is_rejected_at_once(shards: ShardFolder, tmp_path: Path):
    copied = tmp_path / "copied"
    shutil.copytree(shards.root, copied)
    (copied / "train-000000.tar").unlink()
    os.mkfifo(copied / "train-000000.tar")
    with pytest.raises(DataError, match="not a regular file"):
        DataSpec(copied).open().load(PREPROCESSING).train[0]


def test_classes_of_the_same_name_are_distinct(shards: ShardFolder, tmp_path: Path):
    index = json.loads(Path(shards.root, "index.json").read_text())
    index["class_names"] = ["crane", "crane"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    source = DataSpec(tmp_path).open()
    assert source.class_names == ("crane", "crane")
    assert set(summarize_source(source)["splits"]["train"]) == {"crane (0)", "crane (1)"}


def test_write_shards_finds_unreadable_images(tmp_path: Path):
    make_images(tmp_path / "d", classes={"a": 8, "b": 8})
    (tmp_path / "d" / "a" / "000.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 of 16 images cannot be read.*--skip-corrupt"):
        write_shards(open_folder(tmp_path / "d"), tmp_path / "out")
    with pytest.raises(DataError):
        DataSpec(tmp_path / "out").open()  # an incomplete folder cannot be opened
    shards, skipped = write_shards(open_folder(tmp_path / "d", skip_corrupt=True), tmp_path / "again")
    assert (shards.num_images, shards.common_size) == (15, (16, 16))
    assert shards.load(PREPROCESSING).train.common_size == (16, 16)  # small images are shifted, as those of a folder
    assert "000.png" in skipped[0]
    for path in (tmp_path / "d" / "a").iterdir():
        path.write_bytes(b"x")  # packed, it would be a class without an image
    with pytest.raises(DataError, match="no readable training image is left in a;"):
        write_shards(open_folder(tmp_path / "d", skip_corrupt=True), tmp_path / "third")
