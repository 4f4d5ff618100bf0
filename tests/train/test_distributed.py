"""Distributed training: two processes match one, interrupted or not."""

import copy
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_images
from dense_data import write_boxes, write_masks
from forked import start_process
from quiet import resume_training, train_model
from safetensors.torch import load_file
from test_run import assert_same
from torch import nn

from ghostnets.errors import ConfigurationError, DataError
from ghostnets.models.g_ghost import MixBatchNorm
from ghostnets.train import Callback, InterruptedRunError, Recipe, RunFolder, run
from ghostnets.train.distributed import DistributedContext, convert_sync_batchnorm

RECIPE = Recipe(
    model="ghost_resnet20", epochs=2, batch_size=8, lr=0.002, warmup=0.2, drop_rate=0.0, ema_decay=0.5, sync_bn=True
)


class FailAfterSixSteps(Callback):
    """After six steps, kills process 0 or interrupts both."""

    def __init__(self, what: str) -> None:
        self.what, self.steps = what, 0

    def on_step_end(self, **_: object) -> None:
        self.steps += 1
        if self.steps == 6 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "stop":
                os.kill(os.getpid(), signal.SIGTERM)


def work(what: str, data: Path, folder: Path, recipe: Recipe = RECIPE) -> None:
    """Body of a process; it exits with the code of the command line."""
    torch.set_num_threads(1)
    run.SAVE_SECONDS = -1.0  # after every step
    try:
        if what == "resume":
            resume_training(folder)
        else:
            train_model(data, folder=folder, recipe=recipe, callbacks=[FailAfterSixSteps(what)])
    except InterruptedRunError as error:
        sys.exit(128 + error.signal)


def started(rank: int, port: int, restarts: int, *arguments: object) -> None:
    """Start a process as torchrun does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(restarts)
    work(*arguments)  # type: ignore[arg-type]


def two_processes(*arguments: object, restarts: int = 0) -> list[int | None]:
    """Exit codes of two processes, forked from one that has imported everything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start_process(started, rank, port, restarts, *arguments) for rank in range(2)]
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("small"), classes={"dark": 21, "light": 24}, size=(8, 8))


@pytest.fixture(scope="module")
def pair(small_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    assert two_processes("whole", small_photos, folder) == [0, 0]
    return folder


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm2d, (3, 5, 4, 2)), (nn.BatchNorm1d, (3, 5)), (MixBatchNorm, (3, 5, 1, 1))]
)
def test_synchronised_normalisation_is_that_of_all_images(
    kind: type[nn.Module], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    """Of two processes, each with the same images."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    layer = kind(5)
    alone, x = copy.deepcopy(layer), torch.randn(shape) + 1
    network = nn.Sequential(layer)
    convert_sync_batchnorm(network, DistributedContext(world_size=2))
    out, expected = network(x), alone(torch.cat([x, x]))
    torch.testing.assert_close(torch.cat([out, out]), expected, rtol=1e-5, atol=1e-5)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.eval()(x), alone.eval()(x), rtol=1e-5, atol=1e-5)


def test_two_processes_match_one(pair: Path, small_photos: Path, tmp_path: Path):
    """With the same batch, shared; only rounding differs, and grows from step to step."""
    train_model(small_photos, folder=tmp_path / "one", recipe=RECIPE)
    first, second = (load_file(folder / "best.safetensors") for folder in (tmp_path / "one", pair))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    for a, b in zip(*(RunFolder(folder).read_metrics() for folder in (tmp_path / "one", pair)), strict=True):
        assert (a.epoch, a.lr, a.train_top1, a.val_top1) == (b.epoch, b.lr, b.train_top1, b.val_top1)
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5 if a.epoch == 1 else 1e-3)
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-3)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_two_processes_match_one_on_boxes_and_masks(task: str, tmp_path: Path):
    """A batch of 11 images in shares of 6 and 5, some of which have no label."""
    if task == "detect":
        some = [[], [(0, 0.5, 0.5, 0.5, 0.5)], [(1, 0.3, 0.4, 0.5, 0.6), (0, 0.7, 0.7, 0.4, 0.4)]]
        data = write_boxes(tmp_path / "data", {"train": [*some, *some, *some, *some[1:]], "val": some})
    else:
        data = write_masks(tmp_path / "data", {"train": 11, "val": 3})
    model = "ghostdet_050" if task == "detect" else "ghostseg_050"
    changes = {"image_size": 32, "batch_size": 11, "lr": 5e-4, "label_smoothing": 0.0, "warmup": 0.0}
    recipe = RECIPE.changed(model=model, weights=None, **changes)
    train_model(data, folder=tmp_path / "one", recipe=recipe)
    assert two_processes("whole", data, tmp_path / "two", recipe) == [0, 0]
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    first, second = load_file(one.best), load_file(two.best)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    for a, b in zip(one.read_metrics(), two.read_metrics(), strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5 if a.epoch == 1 else 1e-3)
        assert getattr(a, a.selection) == pytest.approx(getattr(b, b.selection), abs=1e-3)
    results = [json.loads(run.result.read_text())["evaluation"] for run in (one, two)]
    assert results[0].keys() == results[1].keys()
    assert [result["images"] for result in results] == [3, 3]


def test_interrupted_processes_save_and_resume(pair: Path, small_photos: Path, tmp_path: Path):
    """The signal reaches process 0 only; both stop after the same step."""
    assert two_processes("stop", small_photos, tmp_path / "run") == [143, 143]
    state = RunFolder(tmp_path / "run").load_state()
    assert state is not None
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 3)
    assert two_processes("resume", small_photos, tmp_path / "run") == [0, 0]
    assert_same(pair, tmp_path / "run")


def test_restart_after_a_killed_process_is_bit_identical(pair: Path, small_photos: Path, tmp_path: Path):
    """As torchrun restarts processes: the same command, with the number of restarts in the environment."""
    codes = two_processes("kill", small_photos, tmp_path / "run")
    assert codes[0] == -signal.SIGKILL
    assert codes[1] not in (0, None)  # it does not wait for the dead process
    assert two_processes("kill", small_photos, tmp_path / "run", restarts=1) == [0, 0]
    assert_same(pair, tmp_path / "run")


def test_distributed_run_without_a_name_is_rejected(small_photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="pass --name NAME"):
        train_model(small_photos)


def test_context_of_a_single_process_is_a_no_op():
    distributed = DistributedContext()
    assert distributed.sum([1.0, 2.0]) == [1.0, 2.0]
    assert distributed.on_rank_zero(lambda: "x") == distributed.broadcast("x") == "x"
    with pytest.raises(DataError):
        distributed.on_rank_zero(lambda: (_ for _ in ()).throw(DataError("no")))
    module = torch.nn.Linear(1, 1)
    assert distributed.wrap(module) is module
