"""Hostile, truncated and changing files: one error message, no code executed, no blocking."""

import argparse
import hashlib
import os
import pickle
import random
import re
import threading
import zipfile
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import save_file

from ghostnets.checkpoints import Checkpoint, load_checkpoint, read, read_checkpoint, read_weights, save_checkpoint
from ghostnets.checkpoints.read import load_pickled
from ghostnets.errors import CheckpointError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(create_model("ghostnet_050", num_classes=3).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def rejection(path: Path, message: str) -> str:
    """Assert that every function that reads the file raises the same message."""
    said = set()
    for read_it in (read_weights, lambda path: load_checkpoint("ghostnet_050", path)):
        with pytest.raises(CheckpointError, match=message) as caught:
            read_it(path)
        said.add(str(caught.value))
    (sentence,) = said
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


def test_sha256_is_of_file_content(weights: Path):
    file = read_weights(weights)
    assert file.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert len(file.tensors) == len(create_model("ghostnet_050").state_dict())


def test_safetensors_are_detected_without_suffix(weights: Path, tmp_path: Path):
    plain = weights.rename(tmp_path / "blob")
    assert read_weights(plain).tensors.keys() == create_model("ghostnet_050").state_dict().keys()
    torch.save({"a": torch.ones(2)}, tmp_path / "other")
    assert torch.equal(read_weights(tmp_path / "other").tensors["a"], torch.ones(2))


def test_timm_training_state(tmp_path: Path):
    """As written by timm's CheckpointSaver, and as in the official GhostNetV3 file."""
    state = {
        "epoch": 3,
        "arch": "ghostnetv3",
        "state_dict": {"a": torch.zeros(2)},
        "optimizer": {"state": {0: {"step": 7, "square_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "version": 2,
        "args": argparse.Namespace(lr=0.1, model="ghostnetv3", img_size=None),
        "state_dict_ema": {"a": torch.ones(2)},
        "metric": 77.1,
    }
    torch.save(state, tmp_path / "x.pth.tar")
    assert torch.equal(read_weights(tmp_path / "x.pth.tar").tensors["a"], torch.ones(2))
    del state["state_dict_ema"]
    torch.save(state, tmp_path / "x.pth.tar")
    assert torch.equal(read_weights(tmp_path / "x.pth.tar").tensors["a"], torch.zeros(2))
    state["args"].hook = Path("/")  # one more kind of object than values
    torch.save(state, tmp_path / "x.pth.tar")
    rejection(tmp_path / "x.pth.tar", "is rejected")


def test_oversized_header_is_rejected(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((10 << 30).to_bytes(8, "little") + b'{"a":')
    rejection(path, "not a safetensors file, or is damaged")
    with path.open("r+b") as file:  # and as long as it says, in a file with a hole
        file.truncate((10 << 30) + 8)
    rejection(path, "has 10737418248 bytes, the limit is 4294967296")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pdparams", ".h5"])
def test_truncated_or_empty_file_is_rejected(weights: Path, tmp_path: Path, suffix: str):
    content = weights.read_bytes()
    if suffix == ".pth":
        torch.save({"a": torch.zeros(1000)}, tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / f"x{suffix}").write_bytes(content[:length])
        rejection(tmp_path / f"x{suffix}", "damaged")


def test_randomly_corrupted_files_are_read_or_rejected(tmp_path: Path):
    """The result is tensors or one error message."""
    state = {"conv.weight": torch.randn(4, 3, 3, 3), "bn.running_mean": torch.randn(8)}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    save_file(state, tmp_path / "a.safetensors", metadata={"a": "b"})
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for protocol in (2, 4):
        (tmp_path / f"a{protocol}.pdparams").write_bytes(pickle.dumps(arrays, protocol=protocol))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[f"{name}/kernel:0"] = array
    chance, outcomes = random.Random(0), {True: 0, False: 0}  # whether they were read
    for whole in sorted(tmp_path.iterdir()):
        content = whole.read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            for _ in range(chance.choice([1, 2, 5, 20])):
                changed[chance.randrange(min(len(content), 4000))] = chance.choice([0, 255, chance.randrange(256)])
            whole.write_bytes(changed)
            try:
                read_weights(whole)
                said = ""
            except CheckpointError as error:
                said = str(error)
            assert "\n" not in said
            outcomes[said == ""] += 1
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_are_rejected(tmp_path: Path, value: float):
    model = create_model("ghostnet_050", num_classes=2)
    model.blocks[3][0].bn_dw.running_var[2] = value
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    rejection(tmp_path / "x.safetensors", r"blocks\.3\.0\.bn_dw\.running_var has non-finite values")
    checkpoint = Checkpoint(
        "ghostnet_050", {"num_classes": 2}, model.state_dict(), ("a", "b"), Preprocessing.standard(32, 3)
    )
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match="non-finite"):
        read_checkpoint(tmp_path / "own.safetensors")


def test_non_finite_values_after_folding_are_rejected(tmp_path: Path):
    state = create_model("ghostnet_100_d_li14", num_classes=3).state_dict()
    state["classifier.1.running_var"] = torch.full((1280,), -1.0)
    torch.save(state, tmp_path / "port.pth")
    with pytest.raises(CheckpointError, match=r"conv_head\.weight has non-finite values"):
        load_checkpoint("ghostnet_100", tmp_path / "port.pth")


def test_compressed_archive_is_rejected(tmp_path: Path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert torch.load(tmp_path / "b.pth", weights_only=True)["a"].numel() == 1_000_000  # torch unfolds it
    rejection(tmp_path / "b.pth", "is rejected: it is damaged")


def test_links_are_followed_to_regular_files_only(weights: Path, tmp_path: Path):
    link, second = tmp_path / "link.safetensors", tmp_path / "second.safetensors"
    link.symlink_to(weights)
    second.symlink_to(link)
    assert read_weights(second).sha256 == read_weights(weights).sha256  # as in the hub's cache
    os.mkfifo(tmp_path / "pipe")
    for target, message in [
        ("nowhere", "there is no checkpoint .*: the link is broken"),
        ("link.safetensors", "the link is broken"),  # to itself
        ("/dev/zero", "is not a file"),
        ("pipe", "is not a file"),
        (".", "is not a file"),
    ]:
        link.unlink()
        link.symlink_to(target)
        rejection(link, message)


def test_file_replaced_by_pipe_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "x.safetensors")
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # it was one when it was looked at
    done: list[str] = []

    def attempt() -> None:
        with pytest.raises(CheckpointError, match="is not a file"):
            read_weights(tmp_path / "x.safetensors")
        done.append("rejected")

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert done == ["rejected"]


def test_unreadable_file_is_rejected(weights: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(read.os, "open", denied)
    rejection(weights, r"cannot be read \(Permission denied\)")


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_file_changed_during_read_is_rejected(weights: Path, monkeypatch: pytest.MonkeyPatch, change: str):
    content, look = weights.read_bytes(), os.fstat
    looks = 0

    def change_after_the_first_look(descriptor: int) -> os.stat_result:
        nonlocal looks
        looks += 1
        result = look(descriptor)
        if looks % 2:
            new = {"grows": content + b"more", "shrinks": content[:-7], "is rewritten": bytes(len(content))}[change]
            with weights.open("r+b") as file:
                file.truncate(0)
                file.write(new)
            os.utime(weights, ns=(looks, looks))  # clocks of file systems are coarse
        return result

    monkeypatch.setattr(read.os, "fstat", change_after_the_first_look)
    with pytest.raises(CheckpointError, match=re.escape(f"{weights} changed while it was read; try again")):
        read_weights(weights)
    assert looks == 2


def test_training_state_is_read_safely(tmp_path: Path):
    (tmp_path / "last.pt").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="is not a file"):
        load_pickled(tmp_path / "last.pt")
