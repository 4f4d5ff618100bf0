"""Resuming and repeating with data that have moved or changed, and with another number of epochs."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import make_images
from quiet import resume_training, train_model
from test_run import RECIPE, InterruptedRunError, Listener, StopAt

from ghostnets.checkpoints.read import load_pickled
from ghostnets.cli import train as command
from ghostnets.cli.main import run_command
from ghostnets.data import open_folder
from ghostnets.errors import ConfigurationError, DataError, RunError
from ghostnets.train import RunFolder, repeat_training
from ghostnets.train.report import _settings

CHANGED = "are not those that the run was trained on"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "photos", classes={"dark": 12, "light": 12}, size=(8, 8))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted run."""
    return train_model(data, folder=tmp_path_factory.mktemp("runs") / "run", recipe=RECIPE).folder


@pytest.fixture
def interrupted(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run stopped in its first epoch, and its own copy of the images."""
    shutil.copytree(data, tmp_path / "photos")
    with pytest.raises(InterruptedRunError):
        train_model(tmp_path / "photos", folder=tmp_path / "run", recipe=RECIPE, callbacks=[StopAt(2)])
    return tmp_path / "run", tmp_path / "photos"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_pickled(run / "last.pt")["model"]


def assert_same_weights(run: Path, other: Path) -> None:
    others = weights(other)
    assert all(tensor.equal(others[name]) for name, tensor in weights(run).items())


def test_resume_with_two_images_exchanged_between_classes_is_rejected(interrupted: tuple[Path, Path]):
    run, photos = interrupted
    one, other, aside = photos / "dark" / "000.png", photos / "light" / "000.png", photos / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    with pytest.raises(RunError, match=CHANGED):
        resume_training(run)


def test_resume_with_changed_content_of_the_same_size_is_rejected(interrupted: tuple[Path, Path]):
    run, photos = interrupted
    content = bytearray((photos / "dark" / "000.png").read_bytes())
    content[-1] ^= 1  # in the checksum of the last chunk, so the pixels are the same
    (photos / "dark" / "000.png").write_bytes(content)
    assert open_folder(photos).identity == RunFolder(run).read_config().identity
    with pytest.raises(RunError, match=CHANGED):
        resume_training(run)


def test_resume_with_moved_data_gives_the_same_weights(interrupted: tuple[Path, Path], whole: Path):
    run, photos = interrupted
    moved = photos.rename(photos.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"there is no folder .*photos.*say where: --data FOLDER"):
        resume_training(run)
    resume_training(run, data=moved)
    assert_same_weights(run, whole)
    assert RunFolder(run).read_config().data == str(moved)
    resume_training(run)  # without --data from now on


def test_more_epochs_extend_a_finished_run(whole: Path, tmp_path: Path):
    run, listener = tmp_path / "run", Listener()
    shutil.copytree(whole, run)
    result = resume_training(run, epochs=RECIPE.epochs + 2, callbacks=[listener])
    assert [row.epoch for row in result.history] == list(range(1, RECIPE.epochs + 3))
    assert any(f"epochs instead of {RECIPE.epochs}: the schedule follows" in text for text in listener.messages)
    config = RunFolder(run).read_config()
    assert (config.recipe.epochs, config.earlier_epochs) == (RECIPE.epochs + 2, (RECIPE.epochs,))
    assert _settings(config)["epochs at first"] == str(RECIPE.epochs)
    with pytest.raises(RunError, match=f"cannot end after 1; pass at least --epochs {RECIPE.epochs + 2}"):
        resume_training(run, epochs=1)
    assert RunFolder(run).read_config() == config


def test_repeat_takes_the_new_place_of_the_data_and_checks_them(whole: Path, data: Path, tmp_path: Path):
    run, moved = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    shutil.copy(whole / "config.json", run)
    shutil.copytree(data, moved)
    again = repeat_training(run, into=tmp_path / "again", data=moved, progress=False, report=False)
    assert_same_weights(again.folder, whole)
    (moved / "dark" / "000.png").rename(moved / "light" / "012.png")
    with pytest.raises(RunError, match=CHANGED):
        repeat_training(run, into=tmp_path / "other", data=moved, progress=False, report=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"data": None, "epochs": None}),
        (["--data", "new", "--epochs", "20"], {"data": "new", "epochs": 20}),  # 20 is the default of the recipe
        (["new"], {"data": "new", "epochs": None}),
    ],
)
def test_resume_command_passes_data_and_epochs(
    arguments: list[str], expected: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/x", "new"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.json").touch()
    calls = []

    def resume(folder: Path, **options: object) -> SimpleNamespace:
        calls.append((folder, options))
        return SimpleNamespace(folder=folder)

    monkeypatch.setattr(command, "resume_training", resume)
    monkeypatch.setattr(command, "_print_result", lambda *_: None)
    assert run_command("train", *arguments, "--resume", "runs/x") == 0
    assert calls == [(Path("runs/x"), expected)]
    with pytest.raises(ConfigurationError, match="omit all options but --data and --epochs"):
        run_command("train", *arguments, "--resume", "runs/x", "--lr", "3")


def test_resume_without_image_digest_names_the_compared_values(interrupted: tuple[Path, Path]):
    run, _ = interrupted
    state = load_pickled(run / "last.pt")
    del state["data_identity"]
    torch.save(state, run / "last.pt")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "identity": None}))
    listener = Listener()
    resume_training(run, callbacks=[listener])
    assert any("only the number of images and the classes are compared" in text for text in listener.messages)
