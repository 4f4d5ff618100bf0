"""The metrics of an epoch: one definition, shown everywhere."""

import csv
from pathlib import Path

import pytest
import torch
from quiet import train_model

from ghostnets.train import METRICS, SELECTION, EpochResult, Recipe, RunFolder, best_epoch, format_minutes
from ghostnets.train.evaluation import Evaluation, ImagePredictions
from ghostnets.train.metrics import EpochMeasurements
from ghostnets.train.schedule import learning_rate
from ghostnets.train.state import TrainProgress

COLUMNS = ["epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "images_per_second", "seconds"]


def test_measure_matches_the_definitions():
    recipe = Recipe(epochs=4)
    progress = TrainProgress(epoch=1, loss_sum=30.0, correct=5, num_seen=20, train_seconds=4.0, seconds=9.0)
    evaluation = Evaluation(10, 1.5, 0.7, 1.0, (), (), ImagePredictions(*[torch.zeros(0)] * 5))
    result = EpochResult.measure(EpochMeasurements(recipe, progress, evaluation))
    assert result == EpochResult(2, learning_rate(recipe, 2), 1.5, 0.25, 1.5, 0.7, 5.0, 9.0)
    assert result.format("val_top1") == "70.00%"
    assert result.format("seconds") == format_minutes(9) == "0:09"


def test_best_epoch_of_equals_has_the_lowest_loss_or_is_the_first():
    def epochs(*values: tuple[float, float]) -> list[EpochResult]:
        return [EpochResult(i, 0, 0, 0, loss, top1, 1, 1) for i, (top1, loss) in enumerate(values, 1)]

    assert best_epoch(epochs((0.2, 0.1), (0.5, 0.9), (0.5, 0.8), (0.4, 0.2))).epoch == 3
    assert best_epoch(epochs((0.0, 0.9), (0.0, 0.9), (0.0, 0.9))).epoch == 1
    assert METRICS[SELECTION].higher_is_better


def test_every_metric_is_in_the_csv_and_in_tensorboard(photos: Path, tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    single = [name for name, metric in METRICS.items() if "classes" in metric.kinds]
    assert ["epoch", *single] == COLUMNS  # the format of metrics.csv
    train_model(photos, folder=tmp_path / "run", model="ghost_resnet20", epochs=2, batch_size=8)
    run = RunFolder(tmp_path / "run")
    with run.metrics.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == COLUMNS
    events = event_accumulator.EventAccumulator(str(run.tensorboard)).Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(single)
    for column, name in enumerate(single, 1):
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([float(row[column]) for row in rows[1:]], rel=1e-5)
