"""The end of a run by time limit or patience, and the estimate of its time."""

import itertools
import time
from pathlib import Path

import pytest
from quiet import resume_training, train_model
from test_run import Listener, StopAt

from ghostnets.errors import ConfigurationError
from ghostnets.train import InterruptedRunError, Recipe, RunFolder
from ghostnets.train.duration import describe_end, schedule_position
from ghostnets.train.estimate import TimeEstimate
from ghostnets.train.state import TrainProgress

RECIPE = Recipe(model="ghost_resnet20", epochs=3, batch_size=8, lr=0.05, drop_rate=0.0)


def test_schedule_follows_the_time_if_that_is_further():
    recipe = Recipe(epochs=10, time_limit="100s")
    progress = TrainProgress(epoch=2, seconds=40.0, val_seconds=10.0)  # 40 of 80 s
    assert schedule_position(recipe, progress, 2.5) == 5.0
    assert schedule_position(recipe, progress, 7.5) == 7.5
    assert schedule_position(recipe, TrainProgress(seconds=90.0, val_seconds=10.0), 2.5) == 10
    assert schedule_position(recipe, TrainProgress(val_seconds=60.0), 0.0) == 10  # no time for more than a validation
    assert schedule_position(recipe.changed(time_limit=None), progress, 2.5) == 2.5


def test_end_is_by_epochs_time_or_patience():
    recipe = Recipe(epochs=10, time_limit="100s", patience=3)
    assert describe_end(recipe, TrainProgress()) is None
    assert describe_end(recipe, TrainProgress(epoch=10, step=1, best_epoch=9)) is None
    assert describe_end(recipe, TrainProgress(epoch=10, best_epoch=9)) == "after 10 epochs"
    assert (
        describe_end(recipe, TrainProgress(epoch=5, best_epoch=4, seconds=100.0)) == "after epoch 5, at the time limit"
    )
    assert describe_end(recipe, TrainProgress(epoch=5, best_epoch=2)) is None
    assert describe_end(recipe, TrainProgress(epoch=6, best_epoch=2)) == (
        "after epoch 6, as 3 epochs have brought no better validation accuracy than epoch 3"
    )


@pytest.mark.parametrize("value", ["20", "0m", "-1h", "soon", "1e3s"])
def test_time_limit_without_unit_is_rejected(value: str):
    with pytest.raises(ConfigurationError, match=r"time_limit is .*, expected a number above 0 with its unit"):
        Recipe(time_limit=value)


def test_time_limited_run_ends_in_time_over_two_sessions(photos: Path, tmp_path: Path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # a second passes between two readings
    listener, recipe = Listener(), RECIPE.changed(epochs=1000, time_limit="20s")
    with pytest.raises(InterruptedRunError):
        train_model(photos, folder=tmp_path / "run", recipe=recipe, callbacks=[StopAt(3)])
    result = resume_training(tmp_path / "run", callbacks=[listener])
    assert 16 <= result.seconds <= 20
    assert result.history[-1].lr == 0
    assert 1 < len(result.history) < 10
    assert listener.messages[-1] == f"training ends after epoch {len(result.history)}, at the time limit"
    assert len(resume_training(tmp_path / "run", callbacks=[listener]).history) == len(result.history)
    assert "is finished, after epoch" in listener.messages[-1]


def test_run_without_improvement_ends_by_patience(photos: Path, tmp_path: Path):
    listener, recipe = Listener(), RECIPE.changed(epochs=40, patience=2, lr=1e-9, weight_decay=0.0, ema_decay=0.999)
    result = train_model(photos, folder=tmp_path / "run", recipe=recipe, callbacks=[listener])
    assert len(result.history) == result.best_epoch + 2
    assert "2 epochs have brought no better validation accuracy" in listener.messages[-1]
    assert RunFolder(tmp_path / "run").read_config().recipe.patience == 2


def test_estimate_is_announced_once_and_again_when_it_changes():
    progress = TrainProgress(val_seconds=2.0)
    estimate = TimeEstimate(Recipe(epochs=10), progress, 20)
    assert [estimate.add_step(seconds) for seconds in (9.0, 1.0, 0.5)] == [None] * 3  # the first warms up
    progress.step = 4
    progress.seconds = 11.5
    assert estimate.add_step(1.5) == "about 4 minutes: 10 epochs of 22 s with validation"
    assert estimate.add_step(1.0) is None
    for _ in range(100):
        estimate.add_step(3.0)
    progress.epoch, progress.step, progress.seconds = 1, 0, 71.0
    assert estimate.add_epoch() == "now about 9 minutes left: 9 epochs of 60 s with validation"
    assert estimate.add_epoch() is None


def test_estimate_is_silent_for_short_runs_and_respects_the_limit():
    progress = TrainProgress(step=4)
    short = TimeEstimate(Recipe(epochs=1), progress, 5)
    assert [short.add_step(1.0) for _ in range(5)] == [None] * 5
    limited = TimeEstimate(Recipe(epochs=1000, time_limit="5m"), progress, 50)
    assert [limited.add_step(1.0) for _ in range(4)][-1] == (
        "about 5 minutes: 1000 epochs of 50 s with validation, at most 5m in all"
    )
