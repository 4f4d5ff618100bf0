"""The metrics of an epoch: one definition each, for metrics.csv, TensorBoard, the console, the reports and ``compare``.

A metric is one field of ``EpochResult``. Its name is the column and the TensorBoard tag; the rest is its ``Metric``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ghostnets.train.duration import schedule_position
from ghostnets.train.evaluation import Evaluation
from ghostnets.train.recipe import Recipe
from ghostnets.train.schedule import learning_rate
from ghostnets.train.state import TrainProgress

__all__ = ["METRICS", "SELECTION", "Axis", "EpochMeasurements", "EpochResult", "Metric", "best_epoch", "format_minutes"]


def format_minutes(seconds: float) -> str:
    """
    >>> format_minutes(605)
    '10:05'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class EpochMeasurements(NamedTuple):
    """Input of the metrics of an epoch."""

    recipe: Recipe
    progress: TrainProgress  # at the end of the epoch
    evaluation: Evaluation  # on the validation images


class Axis(NamedTuple):
    """A plot over the epochs, shared by a ``train_`` and a ``val_`` metric."""

    label: str  # with the unit
    scale: float  # from the metric to that unit


LOSS, TOP1 = Axis("loss (nats)", 1), Axis("top-1 (%)", 100)


@dataclass(frozen=True)
class Metric:
    """Computation and presentation of a field of ``EpochResult``.

    Attributes:
        label: Label in the console and in tables.
        format: Value -> text.
        compute: The value at the end of an epoch.
        axis: Plot of the metric; None for none.
        higher_is_better: Direction of improvement; None if there is none.
    """

    label: str
    format: Callable[[float], str]
    compute: Callable[[EpochMeasurements], float]
    axis: Axis | None = None
    higher_is_better: bool | None = None


def _metric(*arguments: Any, **options: Any) -> Any:
    return field(metadata={"metric": Metric(*arguments, **options)})


@dataclass(frozen=True)
class EpochResult:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: Number of the epoch, from 1.
        lr: Learning rate at the end of the epoch.
        train_loss: Mean training loss over the epoch, with label smoothing and augmentation.
        train_top1: Accuracy on the augmented training images.
        val_loss, val_top1: Loss and accuracy on the validation images.
        images_per_second: Training speed, without evaluation.
        seconds: Time of training and evaluation since the start of the run, over all sessions.
    """

    epoch: int
    lr: float = _metric(
        "lr",
        "{:.2g}".format,
        lambda e: learning_rate(e.recipe, schedule_position(e.recipe, e.progress, e.progress.epoch + 1)),
    )
    train_loss: float = _metric(
        "train loss", "{:.3f}".format, lambda e: e.progress.loss_sum / e.progress.num_seen, LOSS, False
    )
    train_top1: float = _metric(
        "train top-1", "{:.2%}".format, lambda e: e.progress.correct / e.progress.num_seen, TOP1, True
    )
    val_loss: float = _metric("val loss", "{:.3f}".format, lambda e: e.evaluation.loss, LOSS, False)
    val_top1: float = _metric("val top-1", "{:.2%}".format, lambda e: e.evaluation.top1, TOP1, True)
    images_per_second: float = _metric(
        "images/s", "{:.0f}".format, lambda e: e.progress.num_seen / e.progress.train_seconds, higher_is_better=True
    )
    seconds: float = _metric("minutes", format_minutes, lambda e: e.progress.seconds, higher_is_better=False)

    @classmethod
    def measure(cls, measurements: EpochMeasurements) -> "EpochResult":
        """Compute all metrics at the end of an epoch."""
        values = {name: metric.compute(measurements) for name, metric in METRICS.items()}
        return cls(epoch=measurements.progress.epoch + 1, **values)

    def format(self, name: str) -> str:
        """The value of a metric as text."""
        return METRICS[name].format(getattr(self, name))


METRICS: dict[str, Metric] = {f.name: f.metadata["metric"] for f in fields(EpochResult) if "metric" in f.metadata}
SELECTION = "val_top1"  # the metric that chooses the best epoch; higher is better


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """The epoch with the best ``SELECTION``, the first of equals."""
    return max(history, key=lambda row: getattr(row, SELECTION))
