import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub.errors import LocalTokenNotFoundError

from ghostnets.checkpoints import Checkpoint, create_model, from_hub, push_to_hub, save_checkpoint, share
from ghostnets.errors import CheckpointError
from ghostnets.preprocessing import Preprocessing

CHECKPOINT_NAMES = ("cat", 'a "quoted" name')


class Hub:
    """Stands for the client of the hub, with its repositories in memory."""

    def __init__(self, files: dict[str, bytes] | None = None, error: Exception | None = None) -> None:
        self.files, self.error = dict(files or {}), error

    def __call__(self, token: str | None) -> "Hub":
        return self

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        if self.error:
            raise self.error
        assert private
        assert exist_ok

    def file_exists(self, repository: str, name: str) -> bool:
        return name in self.files

    def create_commit(self, repository: str, operations: list[Any], *, commit_message: str) -> SimpleNamespace:
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://hub/{repository}/commit/1")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = create_model("ghost_resnet20", num_classes=2)
    arguments = {"num_classes": 2}
    training = {"data": "pets"}
    saved = Checkpoint(
        "ghost_resnet20",
        arguments,
        model.state_dict(),
        CHECKPOINT_NAMES,
        Preprocessing.standard(32, 3),
        training=training,
    )
    save_checkpoint(tmp_path / "best.safetensors", saved)
    return tmp_path / "best.safetensors"


def test_folder_of_a_run_is_pushed_as_its_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    hub = Hub()
    monkeypatch.setattr(share, "HfApi", hub)
    push_to_hub(checkpoint.parent, "me/pets")
    assert hub.files["model.safetensors"] == checkpoint.read_bytes()


def test_pushed_checkpoint_has_card_and_comes_back_equal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    hub = Hub()
    monkeypatch.setattr(share, "HfApi", hub)
    assert push_to_hub(checkpoint, "me/pets") == "https://hub/me/pets/commit/1"
    assert hub.files["model.safetensors"] == checkpoint.read_bytes()
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "ghostnets"
    assert 'from_hub("me/pets")' in card
    assert '"a \\"quoted\\" name"' in card
    assert re.search(r'"data": "pets"', card)

    def download(location: str) -> Path:
        assert location == "hf://me/pets"
        return checkpoint

    monkeypatch.setattr(share, "download", download)
    back = from_hub("me/pets")
    assert back.class_names == CHECKPOINT_NAMES
    saved, built = back.state_dict, back.build().state_dict()
    assert saved.keys() == built.keys()
    assert all(torch.equal(saved[key], built[key]) for key in saved)


def test_detectors_and_segmentation_networks_come_back(
    tiny_detector: Path, tiny_segmenter: Path, monkeypatch: pytest.MonkeyPatch
):
    for path, task, pipeline in (
        (tiny_detector, "detect", "object-detection"),
        (tiny_segmenter, "segment", "image-segmentation"),
    ):
        hub = Hub()
        monkeypatch.setattr(share, "HfApi", hub)
        push_to_hub(path, "me/net")
        header = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
        assert (header["pipeline_tag"], pipeline in header["tags"]) == (pipeline, True)
        monkeypatch.setattr(share, "download", lambda location, path=path: path)
        assert from_hub("me/net").task == task


def test_existing_card_is_kept(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    hub = Hub({"README.md": b"mine"})
    monkeypatch.setattr(share, "HfApi", hub)
    push_to_hub(checkpoint, "me/pets")
    assert hub.files["README.md"] == b"mine"


def test_rejected_upload_and_other_file_are_one_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(share, "HfApi", Hub(error=LocalTokenNotFoundError("no token\nmore")))
    with pytest.raises(CheckpointError, match=r"not be uploaded to me/pets \(no token\); .*hf auth login"):
        push_to_hub(checkpoint, "me/pets")
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        push_to_hub(tmp_path / "other.safetensors", "me/pets")
