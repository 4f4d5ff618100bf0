"""Training runs: their files, their determinism, and resuming at any step."""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_images, read_csv
from forked import start_command
from quiet import resume_training, train_model
from safetensors.torch import load_file

from ghostnets.checkpoints import read_checkpoint, save_checkpoint
from ghostnets.errors import ConfigurationError, RunError, StorageError
from ghostnets.files import write_text
from ghostnets.train import Callback, InterruptedRunError, Recipe, RunFolder, list_warnings

RECIPE = Recipe(model="ghostnet_050", width=0.1, epochs=3, batch_size=8, lr=0.05, drop_rate=0.3)


class StopAt(Callback):
    """Sends this process a signal after a number of steps."""

    def __init__(self, steps: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = steps, number

    def on_step_end(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP as in a terminal, also if the tests run under nohup, which ignores it."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


def final(folder: Path) -> dict[str, torch.Tensor]:
    """The final tensors of a run: best and last weights, and the states of optimizer, average and scaler."""
    state = torch.load(folder / "last.pt", weights_only=True)
    tensors = {f"last.{name}": tensor for name, tensor in state["model"].items()}
    for i, momenta in state["optimizer"]["state"].items():
        tensors |= {
            f"optimizer.{i}.{name}": value for name, value in momenta.items() if isinstance(value, torch.Tensor)
        }
    tensors |= {f"average.{name}": tensor for name, tensor in (state["average"] or {}).items()}
    tensors["scaler"] = torch.tensor([float(value) for value in state["scaler"].values()])
    return {**tensors, **{f"best.{k}": v for k, v in load_file(folder / "best.safetensors").items()}}


def assert_same(a: Path, b: Path) -> None:
    first, second = final(a), final(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert (a / "best.safetensors").read_bytes() == (b / "best.safetensors").read_bytes()
    rows = [
        [{c: value for c, value in row.items() if c not in ("images_per_second", "seconds")} for row in read_csv(file)]
        for file in (a / "metrics.csv", b / "metrics.csv")
    ]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images, and the finished run of ``RECIPE`` on them; tests must not modify either."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    images = make_images(folder / "photos", classes={"dark": 20, "light": 20})
    torch.set_num_threads(1)
    train_model(images, folder=folder / "run", recipe=RECIPE)
    return images, folder / "run"


def test_run_folder_contents(photos: Path, tmp_path: Path):
    result = train_model(photos, folder=tmp_path / "run", recipe=RECIPE, report=True)
    run = RunFolder(tmp_path / "run")
    assert sorted(p.name for p in run.path.iterdir()) == [
        "best.safetensors", "config.json", "last.pt", "metrics.csv", "report.html", "result.json",
        "tensorboard", "train_digests.bin",
    ]  # fmt: skip
    assert result.split == "val"
    assert len(result.history) == 3
    assert json.loads(run.result.read_text())["evaluation"]["top1"] == result.evaluation.top1
    checkpoint = read_checkpoint(result.checkpoint)
    assert checkpoint.class_names == ("dark", "light")
    assert checkpoint.arguments == {
        "num_classes": 2,
        "in_chans": 3,
        "drop_rate": 0.3,
        "small_input": True,
        "width": 0.1,
    }
    assert checkpoint.preprocessing.image_size == 16
    history = result.history
    assert result.best_epoch == 1 + max(range(3), key=lambda i: (history[i].val_top1, -history[i].val_loss))
    assert list(run.tensorboard.glob("events.*"))
    assert run.read_config().recipe == RECIPE.changed(image_size=16, in_chans=3)


def test_training_is_deterministic(uninterrupted: tuple[Path, Path], tmp_path: Path):
    photos, finished = uninterrupted
    train_model(photos, folder=tmp_path / "again", recipe=RECIPE)
    assert_same(finished, tmp_path / "again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    "steps", [1, 4, 6, 11]
)  # 4 steps an epoch: after the first, at an end, in the middle, near the end
@pytest.mark.usefixtures("hangup")
def test_interrupted_run_resumes_bit_identically(
    uninterrupted: tuple[Path, Path], tmp_path: Path, steps: int, number: int
):
    photos, finished = uninterrupted
    with pytest.raises(InterruptedRunError, match=r"resume with: ghostnets train --resume .*interrupted") as caught:
        train_model(photos, folder=tmp_path / "interrupted", recipe=RECIPE, callbacks=[StopAt(steps, number)])
    assert caught.value.signal == number
    with pytest.raises(InterruptedRunError):
        resume_training(tmp_path / "interrupted", callbacks=[StopAt(1, number)])
    torch.manual_seed(99)  # the random state of a new process differs
    resume_training(tmp_path / "interrupted")
    assert_same(finished, tmp_path / "interrupted")


def test_run_with_random_crops_resumes_bit_identically(tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"a": 12, "b": 12}, size=(60, 50))
    recipe = RECIPE.changed(image_size=32, epochs=2)
    train_model(photos, folder=tmp_path / "uninterrupted", recipe=recipe)
    with pytest.raises(InterruptedRunError):
        train_model(photos, folder=tmp_path / "interrupted", recipe=recipe, callbacks=[StopAt(3)])
    resume_training(tmp_path / "interrupted")
    assert_same(tmp_path / "uninterrupted", tmp_path / "interrupted")


def test_images_of_mixed_sizes_are_trained_on(tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"a": 8, "b": 8}, size=(16, 16))
    make_images(tmp_path / "wide", classes={"a": 4}, size=(30, 16))
    for path in (tmp_path / "wide" / "a").iterdir():
        path.rename(photos / "a" / f"004-{path.name}")
    result = train_model(photos, folder=tmp_path / "run", recipe=RECIPE.changed(epochs=1))
    assert len(result.history) == 1


def test_run_killed_at_random_times_resumes_bit_identically(photos: Path, tmp_path: Path):
    """SIGKILL leaves no time to save: the run resumes from its last saved state."""
    options = ["--recipe", "photos", "--model", "ghostnet_050", *TINY, "--epochs", "12", "--drop-rate", "0.3"]
    killed, errors = tmp_path / "runs" / "killed", tmp_path / "errors.txt"
    train_model(photos, folder=tmp_path / "runs" / "uninterrupted", recipe=RECIPE.changed(epochs=12))
    command = ["train", photos, "--name", "killed", *options]
    kills = 0
    for attempt in range(40):
        process = start_command(command, folder=tmp_path, errors=errors)
        seen = (killed / "last.pt").stat().st_mtime_ns if (killed / "last.pt").exists() else 0
        while process.is_alive():
            state = killed / "last.pt"
            if state.exists() and state.stat().st_mtime_ns != seen and kills < 4:
                time.sleep(0.013 * attempt)  # a different moment each time: in a step, an evaluation, a write
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
                break
            time.sleep(0.005)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, errors.read_text()
        if (killed / "best.safetensors").exists():
            read_checkpoint(killed / "best.safetensors")  # complete, whenever the process died
        command = ["train", "--resume", killed]
    assert kills >= 3
    assert_same(tmp_path / "runs" / "uninterrupted", killed)
    assert not list(killed.glob(".*.partial"))


def test_resume_keeps_the_temperature_while_the_weights_are_the_same(photos: Path, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    train_model(photos, folder=run.path, model="ghost_resnet20", epochs=1, batch_size=8)
    calibrated = replace(read_checkpoint(run.best), temperature=1.5)
    save_checkpoint(run.best, calibrated)
    content = run.best.read_bytes()
    resume_training(run.path)
    assert run.best.read_bytes() == content
    other = {name: tensor + 1 for name, tensor in calibrated.state_dict.items()}
    assert run.save_best(replace(calibrated, state_dict=other, temperature=None)) == 1.5  # reported as lost
    assert read_checkpoint(run.best).temperature is None


def test_resuming_a_finished_run_only_evaluates(photos: Path, tmp_path: Path):
    first = train_model(photos, folder=tmp_path / "run", recipe=RECIPE)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    again = resume_training(tmp_path / "run")
    assert again.to_dict() == first.to_dict()
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_run_without_saved_state_resumes_from_its_start(uninterrupted: tuple[Path, Path], tmp_path: Path):
    _, finished = uninterrupted
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "config.json", tmp_path / "run")
    resume_training(tmp_path / "run")
    assert_same(finished, tmp_path / "run")


def test_result_is_evaluated_on_the_test_split(tmp_path: Path):
    make_images(tmp_path / "d" / "train", classes={"a": 16, "b": 16})
    make_images(tmp_path / "d" / "test", classes={"a": 3, "b": 4})
    result = train_model(tmp_path / "d", folder=tmp_path / "run", recipe=RECIPE)
    assert (result.split, result.evaluation.images) == ("test", 7)
    assert result.num_training_images == 3  # the images of a are the first of train/a, from the same seed
    assert "3 of these images are also among the training images" in list_warnings(result)[1]


def test_existing_folder_is_rejected_and_unchanged(photos: Path, tmp_path: Path):
    write_text(tmp_path / "run" / "precious.txt", "mine")
    with pytest.raises(RunError, match="already exists; choose another name"):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["precious.txt"]


def test_unknown_model_makes_no_folder(photos: Path, tmp_path: Path):
    for recipe in (RECIPE.changed(model="ghostnet"), RECIPE.changed(model="ghostnet_100_d_li14")):
        with pytest.raises(ConfigurationError):
            train_model(photos, folder=tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()


def test_resuming_a_missing_or_damaged_run_is_rejected(photos: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"holds no training run"):
        resume_training(tmp_path)
    with pytest.raises(InterruptedRunError):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[StopAt(2)])
    content = (tmp_path / "run" / "last.pt").read_bytes()
    (tmp_path / "run" / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"cannot be resumed: .*last\.pt is"):
        resume_training(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json cannot be used"):
        resume_training(tmp_path / "run")


def test_resuming_with_changed_data_is_rejected(photos: Path, tmp_path: Path):
    with pytest.raises(InterruptedRunError):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[StopAt(2)])
    (photos / "light" / "000.png").unlink()
    (photos / "light" / "001.png").unlink()
    changed = r"the images in .*photos are not those that the run was trained on: some are missing, new or changed"
    with pytest.raises(RunError, match=changed):
        resume_training(tmp_path / "run")
    shutil.rmtree(photos / "light")
    make_images(photos, classes={"l": 10, "m": 10})
    with pytest.raises(RunError, match=changed):
        resume_training(tmp_path / "run")


def test_non_finite_loss_stops_with_advice(photos: Path, tmp_path: Path):
    with pytest.raises(
        RunError,
        match=r"the loss became (nan|inf) in epoch \d+, step \d+: .*(weights|output).*; start again with a smaller",
    ):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE.changed(lr=1e30))


class FullDisk(Callback):
    """Nothing can be written from the first step of one epoch to the end of another, both from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
        self.real, self.first, self.last, self.epoch = os.fsync, first, last, 0
        self.messages: list[str] = []
        monkeypatch.setattr(os, "fsync", self.write)

    def write(self, handle: int) -> None:
        if self.first <= self.epoch <= self.last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.real(handle)

    def on_step_end(self, *, epoch: int, **_: object) -> None:
        self.epoch = epoch + 1

    def on_message(self, sentence: str) -> None:
        self.messages += [sentence] if "could not" in sentence else []


@pytest.mark.parametrize("epoch", [1, 2])
def test_disk_that_is_full_for_a_while_changes_nothing(
    uninterrupted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
):
    photos, finished = uninterrupted
    disk = FullDisk(monkeypatch, first=epoch, last=epoch)
    train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[disk])
    assert len(disk.messages) == 1
    assert "No space left on device): the training continues and tries again after the next epoch" in disk.messages[0]
    assert_same(finished, tmp_path / "run")


def test_full_disk_keeps_the_files_and_resumes_bit_identically(
    uninterrupted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk is full from the second epoch on: the files of the first are complete, and the run resumes later."""
    photos, finished = uninterrupted
    disk = FullDisk(monkeypatch, first=2, last=3)
    with pytest.raises(
        StorageError,
        match=r"the training ends, but could not be saved in .*No space left on device\); free space, then",
    ):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[disk])
    monkeypatch.undo()
    assert len(disk.messages) == 1  # after the second of three epochs
    read_checkpoint(tmp_path / "run" / "best.safetensors")
    resume_training(tmp_path / "run")
    assert_same(finished, tmp_path / "run")


def test_interrupted_with_a_full_disk_resumes_from_the_state_before(
    uninterrupted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photos, finished = uninterrupted
    disk = FullDisk(monkeypatch, first=2, last=3)
    with pytest.raises(StorageError, match=r"resume from the state saved before: ghostnets train --resume"):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[disk, StopAt(6, signal.SIGTERM)])
    monkeypatch.undo()
    resume_training(tmp_path / "run")
    assert_same(finished, tmp_path / "run")


def test_failed_start_leaves_no_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the network cannot be built, as without its published weights offline."""
    monkeypatch.setattr("ghostnets.train.setup.build_initial_network", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_model(photos, folder=tmp_path / "runs" / "run", recipe=RECIPE)
    assert not (tmp_path / "runs").exists()


def test_second_training_of_a_name_changes_nothing(photos: Path, tmp_path: Path):
    """The second one starts while the first trains, with other settings."""
    run, sentences = tmp_path / "run", []

    class StartAgain(Callback):
        def on_step_end(self, **_: object) -> None:
            if not sentences:
                before = (run / "config.json").read_bytes()
                with pytest.raises(RunError) as rejected:
                    train_model(photos, folder=run, recipe=RECIPE.changed(lr=0.01))
                sentences.append(str(rejected.value))
                assert (run / "config.json").read_bytes() == before

    train_model(photos, folder=run, recipe=RECIPE.changed(epochs=1), callbacks=[StartAgain()])
    assert "is being trained by another process" in sentences[0]


class Listener(Callback):
    """Records the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, sentence: str) -> None:
        self.messages.append(sentence)


def test_resume_restores_missing_files_or_names_them(photos: Path, tmp_path: Path):
    first = train_model(photos, folder=tmp_path / "run", recipe=RECIPE)
    run = RunFolder(tmp_path / "run")
    metrics = run.metrics.read_bytes()
    for file in (run.metrics, run.result, *run.tensorboard.iterdir()):
        file.unlink()
    listener = Listener()
    assert resume_training(run.path, callbacks=[listener]).to_dict() == first.to_dict()
    assert sum("is finished, after 3 epochs" in message for message in listener.messages) == 1
    assert run.metrics.read_bytes() == metrics
    assert run.result.is_file()
    assert len(list(run.tensorboard.iterdir())) == 1
    best = run.best.read_bytes()
    run.best.unlink()
    if first.best_epoch == 3:
        resume_training(run.path)
        assert run.best.read_bytes() == best
    else:
        with pytest.raises(RunError, match=r"best\.safetensors is missing, .* --repeat"):
            resume_training(run.path)
        run.best.write_bytes(best)
    run.last.unlink()
    with pytest.raises(RunError, match=r"holds best.*, but not last\.pt, .* --repeat"):
        resume_training(run.path)
    assert run.best.read_bytes() == best


def test_removed_folder_ends_the_training_and_stays_removed(photos: Path, tmp_path: Path):
    run = tmp_path / "run"

    class Remove(Callback):
        def on_step_end(self, **_: object) -> None:
            shutil.rmtree(run, ignore_errors=True)

    with pytest.raises(RunError, match="was removed or moved while the run was trained"):
        train_model(photos, folder=run, recipe=RECIPE, callbacks=[Remove()])
    assert not run.exists()


def test_full_disk_at_derived_files_is_reported_once_and_they_are_written_later(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = RunFolder.write_metrics

    def full(self: RunFolder, history: list) -> None:
        if len(history) < 3:
            raise StorageError("could not write metrics.csv.") from OSError(errno.ENOSPC, "No space left on device")
        real(self, history)

    monkeypatch.setattr(RunFolder, "write_metrics", full)
    listener = Listener()
    train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[listener])
    notes = [message for message in listener.messages if "could not" in message]
    assert notes == [
        f"a file that follows from the state could not be written in {tmp_path / 'run'} (No space left on device)."
        " The training continues, and the files are written again later."
    ]
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": -1}, "threads is -1, expected from 1"),
        ({"threads": "2"}, "threads is '2', expected from 1"),
        ({"data": None}, "data is None, expected a path"),
        ({"device": "tpu"}, "the device is 'tpu'; it must be auto, cpu, cuda, mps or xpu"),
        ({"workers": 1.5}, "workers is 1.5, expected from 0"),
        ({"arguments": {"num_classes": 10**9}}, "has num_classes 1000000000, but .* has 2 classes"),
        ({"recipe": {"batch_size": 2.5}}, "batch_size is 2.5, expected int"),
        ({"recipe": {"lr": "0.1"}}, "lr is '0.1', expected float"),
        ({"recipe": {"epochs": True}}, "epochs is True, expected int"),
        ({"recipe": {"schedule": None}}, "schedule is None"),
    ],
    ids=str,
)
def test_wrong_value_in_config_is_named(photos: Path, tiny_run: Path, tmp_path: Path, changes: dict, message: str):
    config = json.loads((tiny_run / "config.json").read_text()) | {"data": str(photos)}
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    write_text(tmp_path / "run" / "config.json", json.dumps(config))
    with pytest.raises(RunError, match=message):
        resume_training(tmp_path / "run")
