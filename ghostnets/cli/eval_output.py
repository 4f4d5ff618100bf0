"""Output of ``ghostnets eval``: results by image, as JSON and on the console."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ghostnets.cli.output import message, result_console
from ghostnets.data import ImageDataset
from ghostnets.measure import format_accuracy, wilson_interval
from ghostnets.terminal import format_count, printable
from ghostnets.train import Evaluation, MultiLabelEvaluation

__all__ = ["image_columns", "print_evaluation", "to_json"]

MAX_CLASSES = 50  # in the table of the console
MAX_LINES = 5  # pairs of classes, and images, named on the console


def image_columns(
    result: Evaluation | MultiLabelEvaluation,
    images: ImageDataset,
    indices: Sequence[int],
    in_training: np.ndarray | None,
) -> dict[str, list[Any]]:
    """Results of some images, by column.

    Args:
        result: The evaluation.
        images: The evaluated images.
        indices: Images of the rows, in this order.
        in_training: Whether each of ``images`` is a training image, bool (N,); None if unknown.
    """
    rows, names = result.predictions, [row.name for row in result.classes]
    described = [rows.describe(i, names) for i in indices]
    return {
        "path": [printable(images.name(i)) for i in indices],
        "truth": [truth for truth, _ in described],
        "prediction": [prediction for _, prediction in described],
        "probability": rows.probabilities[indices].tolist(),
        "loss": rows.losses[indices].tolist(),
        "training_image": [None if in_training is None else bool(in_training[i]) for i in indices],
    }


def to_json(
    result: Evaluation | MultiLabelEvaluation, images: ImageDataset, in_training: np.ndarray | None
) -> dict[str, Any]:
    """Everything but the correct images, ready for JSON."""
    columns = image_columns(result, images, result.predictions.mistakes().tolist(), in_training)
    score = "exact_match" if result.multi_label else "top1"
    training: dict[str, Any] | None = None
    if in_training is not None:
        others = result.predictions.correct[torch.from_numpy(~in_training)]
        training = {
            "images": int(in_training.sum()),
            f"{score}_of_others": others.double().mean().item() if len(others) else None,
            f"{score}_interval_of_others": wilson_interval(int(others.sum()), len(others)) if len(others) else None,
        }
    mistakes = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(result, MultiLabelEvaluation):
        return {**result.to_dict(), "training_images": training, "mistakes": mistakes}
    names = [row.name for row in result.classes]
    values, areas = result.to_dict(), result.curve_areas
    if areas is not None:
        values |= {"roc_area": areas.mean(areas.roc), "average_precision": areas.mean(areas.precision_recall)}
        for row, roc, precision in zip(values["classes"], areas.roc, areas.precision_recall, strict=True):
            row |= {"roc_area": roc, "average_precision": precision}
    return {
        **values,
        "training_images": training,
        "most_confused": [
            {"truth": names[true], "prediction": names[predicted], "images": count}
            for true, predicted, count in result.mistakes[:100]
        ],
        "mistakes": mistakes,
    }


def print_evaluation(
    result: Evaluation | MultiLabelEvaluation, images: ImageDataset, split: str, in_training: np.ndarray | None
) -> None:
    """Print the classes, the most confused ones, the mistakes that stand out, and the accuracy."""
    console = result_console()
    console.print(_class_table(result))
    if len(result.classes) > MAX_CLASSES:
        console.print(f"the {MAX_CLASSES} of {len(result.classes)} classes with the lowest recall; all of them: --json")
    confused = [] if isinstance(result, MultiLabelEvaluation) else result.mistakes[:MAX_LINES]
    for true, predicted, count in confused:
        truth, prediction = result.classes[true], result.classes[predicted].name
        line = f"{count} of {format_count(truth.images, 'image')} of {truth.name} predicted as {prediction}"
        console.print(line, soft_wrap=True)
    wrong = result.predictions.mistakes()[:MAX_LINES].tolist()
    columns = image_columns(result, images, wrong, in_training)
    for path, truth, prediction, probability, *_ in zip(*columns.values(), strict=True):
        console.print(f"{path}: {truth}, predicted {prediction} ({probability:.0%})", soft_wrap=True)
    scores = "   ".join(f"{label} {value}" for label, value in result.headline().items())
    console.print(
        f"{format_count(result.images, 'image')} ({split})   {scores}   loss {result.loss:.4f}", soft_wrap=True
    )
    areas = result.curve_areas
    means = None if areas is None else [areas.mean(areas.roc), areas.mean(areas.precision_recall)]
    figures = {
        **({} if result.multi_label else {"macro F1": f"{result.macro_f1:.1%}"}),
        **({} if means is None else dict(zip(("ROC area", "PR area"), map(_format_area, means), strict=True))),
        "expected calibration error": f"{result.calibration_error:.1%}",
    }
    console.print("   ".join(f"{name} {value}" for name, value in figures.items()), soft_wrap=True)
    console.print(f"In parentheses: 95% intervals. {result.describe_baseline()}", soft_wrap=True)
    _print_training_images(result, in_training)


def _class_table(result: Evaluation | MultiLabelEvaluation) -> Table:
    table = Table("no.", "class", "images", "recall", "precision", "F1", title=None)
    areas = result.curve_areas
    for name in ("ROC area", "PR area") if areas is not None else ():
        table.add_column(name)
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    rows = list(enumerate(result.classes, 1))
    if len(rows) > MAX_CLASSES:
        rows = sorted(rows, key=lambda row: 2.0 if row[1].recall is None else row[1].recall)[:MAX_CLASSES]
    for number, row in rows:
        recall, precision = format_accuracy(row.correct, row.images), format_accuracy(row.correct, row.predicted)
        cells = [recall, precision, "-" if row.f1 is None else f"{row.f1:.1%}"]
        if areas is not None:
            cells += [_format_area(areas.roc[number - 1]), _format_area(areas.precision_recall[number - 1])]
        table.add_row(str(number), row.name, str(row.images), *cells)
    return table


def _format_area(area: float | None) -> str:
    return "-" if area is None else f"{area:.3f}"


def _print_training_images(result: Evaluation | MultiLabelEvaluation, in_training: np.ndarray | None) -> None:
    if in_training is None:
        message(
            "whether these are training images is unknown: train_digests.bin of the run is not next to the checkpoint,"
            " or the shards were written without digests."
        )
    elif seen := int(in_training.sum()):
        others = result.predictions.correct[torch.from_numpy(~in_training)]
        score = "the share with all labels correct" if result.multi_label else "top-1"
        rest = f"on the other {len(others)}, {score} is {format_accuracy(int(others.sum()), len(others))}"
        message(
            f"{seen} of {result.images} images are training images of this network, so the figures are too good;"
            f" {rest if len(others) else 'none is new to it'}."
        )
