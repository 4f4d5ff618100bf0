"""Files that follow from the history: what the live report costs, and what happens when it fails."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ghostnets.errors import RunError
from ghostnets.train import derived


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> derived.DerivedFiles:
    board = SimpleNamespace(add_epoch=lambda result: None, close=lambda: None)
    monkeypatch.setattr(derived, "TensorBoardWriter", lambda *_: board)
    folder = SimpleNamespace(tensorboard=Path("board"), write_metrics=lambda history: None)
    messages: list[str] = []
    made = derived.DerivedFiles(folder, ["epoch 1"], None, report=True, on_message=messages.append)
    made.messages = messages
    return made


def write_report_by(monkeypatch: pytest.MonkeyPatch, write) -> None:
    monkeypatch.setattr(derived, "write_live_report", write)


def test_slow_live_report_is_written_in_at_most_two_per_cent_of_the_time(files, monkeypatch: pytest.MonkeyPatch):
    clock, written = [0.0], []

    def write(folder: object) -> None:
        clock[0] += 3.0  # a slow disk
        written.append(clock[0])

    monkeypatch.setattr(derived.time, "monotonic", lambda: clock[0])
    write_report_by(monkeypatch, write)
    with files:
        for _ in range(600):
            clock[0] += 1.0
            files.add_epoch(is_saved=True)
    assert len(written) == 4
    assert len(written) * 3.0 / clock[0] < 0.021


def test_failed_live_report_is_reported_once_and_training_continues(files, monkeypatch: pytest.MonkeyPatch):
    def fail(folder: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr(derived, "REPORT_SECONDS", 0)
    monkeypatch.setattr(derived, "REPORT_COST", 0)
    write_report_by(monkeypatch, fail)
    with files:
        files.add_epoch(is_saved=True)
        files.add_epoch(is_saved=True)
    (message,) = files.messages
    assert message.startswith("the live report could not be written (ValueError: no font). The training continues")


def test_removed_folder_ends_the_training(files, monkeypatch: pytest.MonkeyPatch):
    def fail(folder: object) -> None:
        raise RunError("it was removed")

    write_report_by(monkeypatch, fail)
    with files, pytest.raises(RunError):
        files.add_epoch(is_saved=True)
