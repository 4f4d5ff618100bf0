"""The metrics of an epoch: one definition each, for metrics.csv, TensorBoard, the console, the reports and ``compare``.

A metric is one field of ``EpochResult``. Its name is the column and the TensorBoard tag; a ``Metric`` defines it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ghostnets.train.detection import BoxEvaluation
from ghostnets.train.duration import schedule_position
from ghostnets.train.evaluation import Evaluation
from ghostnets.train.multi_label import MultiLabelEvaluation
from ghostnets.train.recipe import Recipe
from ghostnets.train.schedule import learning_rate
from ghostnets.train.segmentation import MaskEvaluation
from ghostnets.train.state import TrainProgress

__all__ = ["METRICS", "SELECTION", "Axis", "EpochMeasurements", "EpochResult", "Metric", "best_epoch", "format_minutes"]


def format_minutes(seconds: float) -> str:
    """
    >>> format_minutes(605)
    '10:05'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


KINDS = ("classes", "labels", "boxes", "masks")  # of labels: one class per image, any number of them, boxes, masks


class EpochMeasurements(NamedTuple):
    """Input of the metrics of an epoch."""

    recipe: Recipe
    progress: TrainProgress  # at the end of the epoch
    evaluation: Evaluation | MultiLabelEvaluation | BoxEvaluation | MaskEvaluation  # on the validation images


class Axis(NamedTuple):
    """A plot over the epochs, of a ``val_`` metric and the ``train_`` metric of the same kind, if there is one."""

    label: str  # with the unit
    scale: float  # from the metric to that unit


LOSS, TOP1 = Axis("loss (nats)", 1), Axis("top-1 (%)", 100)
AP50 = Axis("AP50 (%)", 100)
MEAN_IOU, PIXEL_ACCURACY = Axis("mean intersection over union (%)", 100), Axis("pixel accuracy (%)", 100)
EXACT, MEAN_AP = Axis("all labels correct (%)", 100), Axis("mean average precision (%)", 100)


@dataclass(frozen=True)
class Metric:
    """Computation and presentation of a field of ``EpochResult``.

    Attributes:
        label: Label in the console and in tables.
        format: Value -> text.
        compute: The value at the end of an epoch.
        axis: Plot of the metric; None for none.
        higher_is_better: Direction of improvement; None if there is none.
        kinds: Kinds of labels that have the metric: "classes" for one class per image, "labels" for any number of
            classes, "boxes" for objects, "masks" for pixels.
    """

    label: str
    format: Callable[[float], str]
    compute: Callable[[EpochMeasurements], float]
    axis: Axis | None = None
    higher_is_better: bool | None = None
    kinds: tuple[str, ...] = KINDS


def _metric(*arguments: Any, **options: Any) -> Any:
    return field(metadata={"metric": Metric(*arguments, **options)})


def _optional_metric(
    label: str,
    compute: Callable[[EpochMeasurements], float],
    axis: Axis | None = None,
    kinds: tuple[str, ...] = ("labels",),
) -> Any:
    metric = Metric(label, "{:.2%}".format, compute, axis, higher_is_better=True, kinds=kinds)
    return field(default=None, metadata={"metric": metric})


def _train_accuracy(measurements: EpochMeasurements) -> float:
    return measurements.progress.correct / measurements.progress.num_seen


@dataclass(frozen=True)
class EpochResult:
    """One row of ``metrics.csv``.

    Metrics that do not apply to the kind of labels are None, and no column.

    Attributes:
        epoch: Number of the epoch, from 1.
        lr: Learning rate at the end of the epoch.
        train_loss: Mean training loss over the epoch, with label smoothing and augmentation.
        train_top1: Accuracy on the augmented training images.
        val_loss, val_top1: Loss and accuracy on the validation images.
        images_per_second: Training speed, without evaluation.
        seconds: Time of training and evaluation since the start of the run, over all sessions.
        train_exact, val_exact: Share of the augmented training images, and of the validation images, all of whose
            labels are predicted, and no others.
        val_map: Mean average precision on the validation images; for boxes COCO's, averaged over the IoU thresholds
            from 0.5 to 0.95.
        val_f1_micro, val_f1_macro: F1 of all labels together, and mean F1 of the classes.
        val_ap50: Mean average precision of boxes at an IoU threshold of 0.5, on the validation images.
        val_miou: Mean intersection over union of the classes of masks, on the validation images.
        val_pixel_accuracy: Share of the labelled pixels whose class is predicted, on the validation images.
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
    train_top1: float | None = _metric("train top-1", "{:.2%}".format, _train_accuracy, TOP1, True, kinds=("classes",))
    val_loss: float = _metric("val loss", "{:.3f}".format, lambda e: e.evaluation.loss, LOSS, False)
    val_top1: float | None = _metric(
        "val top-1", "{:.2%}".format, lambda e: e.evaluation.scores["top1"], TOP1, True, kinds=("classes",)
    )
    images_per_second: float = _metric(
        "images/s", "{:.0f}".format, lambda e: e.progress.num_seen / e.progress.train_seconds, higher_is_better=True
    )
    seconds: float = _metric("minutes", format_minutes, lambda e: e.progress.seconds, higher_is_better=False)
    train_exact: float | None = _optional_metric("train exact", _train_accuracy, EXACT)
    val_exact: float | None = _optional_metric("val exact", lambda e: e.evaluation.scores["exact"], EXACT)
    val_map: float | None = _optional_metric(
        "val mAP", lambda e: e.evaluation.scores["map"], MEAN_AP, ("labels", "boxes")
    )
    val_f1_micro: float | None = _optional_metric("val F1 micro", lambda e: e.evaluation.scores["f1_micro"])
    val_f1_macro: float | None = _optional_metric("val F1 macro", lambda e: e.evaluation.scores["f1_macro"])
    val_ap50: float | None = _optional_metric("val AP50", lambda e: e.evaluation.scores["ap50"], AP50, ("boxes",))
    val_miou: float | None = _optional_metric("val mIoU", lambda e: e.evaluation.scores["miou"], MEAN_IOU, ("masks",))
    val_pixel_accuracy: float | None = _optional_metric(
        "val pixels", lambda e: e.evaluation.scores["pixel_accuracy"], PIXEL_ACCURACY, ("masks",)
    )

    @classmethod
    def measure(cls, measurements: EpochMeasurements) -> "EpochResult":
        """Compute all metrics at the end of an epoch that apply to the data."""
        kind = measurements.evaluation.kind
        values = {
            name: metric.compute(measurements) if kind in metric.kinds else None for name, metric in METRICS.items()
        }
        return cls(epoch=measurements.progress.epoch + 1, **values)  # type: ignore[arg-type]

    @classmethod
    def from_columns(cls, values: Mapping[str, float]) -> "EpochResult":
        """Return the row of a table whose columns are the epoch and the metrics that apply.

        Raises:
            KeyError, TypeError: Columns are missing, or unknown.
        """
        row = {**values, "epoch": int(values["epoch"])}
        kind = next((kind for name, kind in OWN_METRICS.items() if name in row), "classes")
        absent = {name: None for name, metric in METRICS.items() if kind not in metric.kinds}
        return cls(**{**absent, **row})  # type: ignore[arg-type]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that apply."""
        return {name: metric for name, metric in METRICS.items() if getattr(self, name) is not None}

    @property
    def selection(self) -> str:
        """The metric that chooses the best epoch; higher is better."""
        return next(name for name in SELECTIONS if getattr(self, name) is not None)

    def format(self, name: str) -> str:
        """Format the value of a metric."""
        return METRICS[name].format(getattr(self, name))


METRICS: dict[str, Metric] = {f.name: f.metadata["metric"] for f in fields(EpochResult) if "metric" in f.metadata}
"""Metrics of an epoch, by the field of ``EpochResult``."""
SELECTION = "val_top1"
"""Metric that chooses the best epoch of a classifier."""
SELECTIONS = (SELECTION, "val_map", "val_miou")  # the metrics that choose the best epoch
OWN_METRICS = {"val_ap50": "boxes", "val_map": "labels", "val_miou": "masks"}  # metric that shows the kind of labels


def best_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch with the best ``selection``, of equals that with the lowest validation loss, or the first."""
    return max(history, key=lambda row: (getattr(row, row.selection), -row.val_loss))
