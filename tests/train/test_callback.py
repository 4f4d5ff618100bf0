"""Callbacks: order, errors, and the examples against stand-ins for the libraries."""

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from quiet import resume_training, train_model
from test_run import StopAt

from ghostnets.train import Callback, InterruptedRunError, Recipe, RunStart

EXAMPLES = Path(__file__).parents[2] / "examples" / "callbacks"
RECIPE = Recipe(model="ghost_resnet20", epochs=2, batch_size=8, drop_rate=0.0)


class Recording(ModuleType):
    """A module whose functions record their calls and return it, as ``wandb.init`` returns a run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.summary: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def record(*arguments: Any, **options: Any) -> "Recording":
            self.calls.append((name, arguments, options))
            return self

        return record

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, options) for each, arguments, options in self.calls if each == name]


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Recording]:
    library = Recording(name)
    monkeypatch.setitem(sys.modules, name, library)
    return runpy.run_path(str(EXAMPLES / f"{name}_callback.py")), library


def test_wandb_example_logs_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names, wandb = example("wandb", monkeypatch)
    callback = names["WandbCallback"]("mine")
    result = train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[callback])
    assert [name for name, _, _ in wandb.calls] == ["init", "log", "log", "save", "finish"]
    assert wandb.named("init")[0][1]["config"]["epochs"] == 2
    first, second = wandb.named("log")
    assert (first[1]["step"], second[1]["step"]) == (1, 2)
    assert second[0][0]["val_top1"] == result.history[1].val_top1
    assert wandb.summary == {"val_top1": result.evaluation.top1}


def test_mlflow_example_logs_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names, mlflow = example("mlflow", monkeypatch)
    callback = names["MlflowCallback"]("mine")
    result = train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[callback])
    assert mlflow.named("start_run") == [((), {"run_name": "run"})]
    assert mlflow.named("log_params")[0][0][0]["model"] == "ghost_resnet20"
    assert [options["step"] for _, options in mlflow.named("log_metrics")] == [1, 2]
    assert mlflow.named("log_metric") == [(("val_top1", result.evaluation.top1), {})]
    assert mlflow.calls[-1] == ("end_run", (), {})


def test_interruption_and_resume_are_reported(photos: Path, tmp_path: Path):
    calls: list[Any] = []

    class Recorder(Callback):
        def on_run_start(self, run: RunStart) -> None:
            calls.append(("start", run.epoch, run.config.recipe.model, run.class_names, run.folder.name))

        def on_run_end(self, result: object) -> None:
            calls.append("end")

        def on_run_error(self, error: BaseException) -> None:
            calls.append(type(error))

    with pytest.raises(InterruptedRunError):
        train_model(photos, folder=tmp_path / "run", recipe=RECIPE, callbacks=[Recorder(), StopAt(6)])
    resume_training(tmp_path / "run", callbacks=[Recorder()])
    resume_training(tmp_path / "run", callbacks=[Recorder()])
    facts = "ghost_resnet20", ("dark", "light"), "run"
    assert calls == [("start", 0, *facts), InterruptedRunError, ("start", 1, *facts), "end", "end"]
