"""The learning rate range test."""

from pathlib import Path

import pytest

from ghostnets.cli.main import main
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.train import find_learning_rate
from ghostnets.train.find_lr import run_learning_rate_test

OPTIONS = {"model": "ghost_resnet20", "batch_size": 8, "drop_rate": 0.0, "progress": False}


def test_suggestion_is_a_tenth_of_the_best_rate_and_nothing_is_written(photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_learning_rate(photos, lr=0.05, **OPTIONS)
    assert found.name == "photos-ghost_resnet20"
    assert found.rates[0] == pytest.approx(1e-6)
    assert all(a < b for a, b in zip(found.rates, found.rates[1:], strict=False))
    assert found.best == found.rates[found.losses.index(min(found.losses))]
    assert found.suggestion == pytest.approx(found.best / 10, rel=0.05)
    assert found.losses[-1] > min(found.losses)
    assert found.current == 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert find_learning_rate(photos, lr=0.2, **OPTIONS).losses == found.losses  # whatever the recipe's own rate is


def test_command_prints_the_suggestion_and_saves_the_curve(photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(photos), "--model", "ghost_resnet20", "--batch-size", "8", "--find-lr"]) == 0
    assert "suggestion   --lr " in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == ["photos-ghost_resnet20-find-lr.png"]


def test_diverging_loss_is_an_error(photos: Path, monkeypatch):
    monkeypatch.setattr("ghostnets.train.find_lr.LOW", 1e30)
    monkeypatch.setattr("ghostnets.train.find_lr.HIGH", 1e35)
    with pytest.raises(RunError, match="not finite or diverges at a learning rate of 1e"):
        find_learning_rate(photos, **OPTIONS)


def test_several_processes_are_rejected(monkeypatch):
    from contextlib import nullcontext
    from types import SimpleNamespace

    from ghostnets.train import Callback
    from ghostnets.train.distributed import DistributedContext

    monkeypatch.setattr("ghostnets.train.find_lr.init_distributed", lambda _: nullcontext(DistributedContext(0, 2)))
    spec = SimpleNamespace(config=SimpleNamespace(recipe=None, device="cpu"))
    with pytest.raises(ConfigurationError, match="by one process; start it without torchrun"):
        run_learning_rate_test(spec, Callback())  # type: ignore[arg-type]
