"""``report.html`` of a run: its content, gathered for the pages of ``ghostnets.explain``."""

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch

from ghostnets import __version__
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.data import ImageDataset
from ghostnets.explain import (
    ClassMetrics,
    DataSummary,
    MetricCurve,
    PredictionExample,
    RunProgress,
    RunReport,
    compute_savings,
    write_progress,
    write_report,
)
from ghostnets.explain.detection_report import DetectionReport, write_detection_report
from ghostnets.explain.page import link_to_file
from ghostnets.explain.segmentation_report import SegmentationReport, write_segmentation_report
from ghostnets.files import relative_path
from ghostnets.measure import processor_name
from ghostnets.models import create_model, model_arguments
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_count, printable
from ghostnets.train.detection import BoxEvaluation
from ghostnets.train.detection.report import collect_class_results, collect_precision_curves, select_examples
from ghostnets.train.evaluation import Evaluation, ImagePredictions
from ghostnets.train.metrics import METRICS, EpochResult, best_epoch, format_minutes
from ghostnets.train.multi_label import LabelSetPredictions, MultiLabelEvaluation
from ghostnets.train.recipes import RECIPES
from ghostnets.train.result import TrainingResult
from ghostnets.train.run_config import RunConfig
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.segmentation import MaskEvaluation
from ghostnets.train.segmentation.report import collect_class_masks, select_mask_examples

__all__ = ["describe_evaluation", "list_warnings", "write_live_report", "write_run_report"]

MISTAKES, UNCERTAIN, CERTAIN = 18, 6, 6  # images shown


def describe_evaluation(result: TrainingResult) -> str:
    """One sentence on the images of the evaluation, and on whether it is optimistic."""
    images = result.evaluation.images
    if result.split == "test":
        return f"Measured on {format_count(images, 'test image')}, on which nothing was chosen."
    return (
        f"Measured on {format_count(images, 'validation image')}, on which the best epoch was also chosen, so the"
        " figures are a little optimistic."
    )


def list_warnings(result: TrainingResult) -> list[str]:
    """Return caveats to the accuracy: the baseline, and evaluated images that are also training images."""
    sentences = [result.evaluation.describe_baseline()]
    if result.num_training_images:
        sentences.append(
            f"{result.num_training_images} of these images are also among the training images, with the same content,"
            " so the figures are too good."
        )
    return sentences


def write_run_report(run: RunFolder, result: TrainingResult) -> None:
    """Write ``report.html`` of a finished run.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    config, evaluation = run.read_config(), result.evaluation
    if isinstance(evaluation, BoxEvaluation):
        _write_detection_report(run, result, config, evaluation)
        return
    if isinstance(evaluation, MaskEvaluation):
        _write_segmentation_report(run, result, config, evaluation)
        return
    checkpoint = read_checkpoint(run.best)
    model, preprocessing = checkpoint.build().to(memory_format=torch.channels_last), checkpoint.preprocessing
    input_shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    plain = None
    if "ratio" in model_arguments(checkpoint.architecture):
        plain = create_model(checkpoint.architecture, **{**checkpoint.arguments, "ratio": 1})
    savings = compute_savings(model, plain, input_shape)
    examples = _choose_examples(run, checkpoint, result, evaluation)
    every = [example for group in examples.values() for example in group]
    first = next((example for example in every if example.is_correct), every[0])
    report = RunReport(
        **_common(result, config, " x ".join(map(str, input_shape))),
        figures={
            **_headline(result),
            **_baseline(evaluation),
            "parameters": f"{savings.params / 1e6:.2f} M",
            "multiply-adds": f"{savings.macs / 1e6:.1f} M",
            **_training_time(result),
        },
        classes=[
            ClassMetrics(c.name, training_images, c.images, c.predicted, c.correct)
            for c, training_images in zip(evaluation.classes, _training_counts(result), strict=True)
        ],
        confusion=evaluation.confusion_cells,
        evaluated_on=describe_evaluation(result),
        examples=examples,
        model=model,
        example_input=preprocessing.normalize(first.pixels[None]),
        example_pixels=first.pixels,
        savings=savings,
    )
    write_report(run.report, report)


def _write_detection_report(
    run: RunFolder, result: TrainingResult, config: RunConfig, evaluation: BoxEvaluation
) -> None:
    names = [row.name for row in evaluation.classes]
    report = DetectionReport(
        **_common(result, config, f"{config.preprocessing.image_size} pixels"),
        figures={**_headline(result), **_training_time(result)},
        classes=collect_class_results(evaluation, _training_counts(result)),
        precision=collect_precision_curves(evaluation),
        confusion=evaluation.confusion_rows(),
        examples=select_examples(evaluation.detections, evaluation.targets, result.images, names, run.path),
    )
    write_detection_report(run.report, report)


def _write_segmentation_report(
    run: RunFolder, result: TrainingResult, config: RunConfig, evaluation: MaskEvaluation
) -> None:
    side = config.preprocessing.image_size
    report = SegmentationReport(
        **_common(result, config, f"{side} x {side} pixels"),
        figures={**_headline(result), **_training_time(result)},
        classes=collect_class_masks(evaluation, _training_counts(result)),
        examples=select_mask_examples(evaluation.worst, evaluation.best, result.images, run.path),
    )
    write_segmentation_report(run.report, report)


class _Common(TypedDict):
    """Fields that the reports of all tasks have."""

    title: str
    summary: str
    warnings: list[str]
    epochs: list[int]
    curves: list[MetricCurve]
    data: DataSummary
    settings: dict[str, str]
    command: str


def _common(result: TrainingResult, config: RunConfig, inputs: str) -> _Common:
    """Return the fields of a report that do not depend on the task; ``inputs`` is the size of the network's images."""
    skipped = f" Unreadable images left out: {len(result.skipped)}." if result.skipped else ""
    classes = format_count(len(result.evaluation.classes), "class")
    notes = [*result.data["notes"], *result.skipped]
    return {
        "title": _title(config),
        "summary": f"{classes}, images of {inputs}. {describe_evaluation(result)}{skipped}",
        "warnings": list_warnings(result),
        "epochs": [row.epoch for row in result.history],
        "curves": _curves(result.history),
        "data": DataSummary(result.data["splits"], notes, result.data.get("images", {})),
        "settings": {"best epoch": str(result.best_epoch), **_settings(config)},
        "command": _command(config),
    }


def _headline(result: TrainingResult) -> dict[str, str]:
    return {f"{label} ({result.split})": value for label, value in result.evaluation.headline().items()}


def _training_time(result: TrainingResult) -> dict[str, str]:
    return {"training": f"{format_minutes(result.seconds)} min"}


def _training_counts(result: TrainingResult) -> list[int]:
    """Return the number of training images, or boxes, of each class."""
    return list(result.data["splits"]["train"].values())


def _baseline(evaluation: Evaluation | MultiLabelEvaluation) -> dict[str, str]:
    if isinstance(evaluation, MultiLabelEvaluation):
        return {}
    return {"largest class": f"{evaluation.largest_class.images / evaluation.images:.1%}"}


def write_live_report(run: RunFolder) -> None:
    """Write ``report.html`` of a run in progress, after its last finished epoch; raises as ``write_run_report``."""
    config, history = run.read_config(), run.read_metrics()
    last, best = history[-1], best_epoch(history)
    left = last.seconds / last.epoch * (config.recipe.epochs - last.epoch)
    if config.recipe.time_limit_seconds is not None:
        left = min(left, max(0.0, config.recipe.time_limit_seconds - last.seconds))
    progress = RunProgress(
        title=_title(config),
        done=last.epoch,
        total=config.recipe.epochs,
        figures={
            METRICS[last.selection].label: last.format(last.selection),
            f"best, epoch {best.epoch}": best.format(best.selection),
            **{metric.label: last.format(name) for name, metric in last.metrics.items() if metric.axis is None},
            "minutes left": format_minutes(left),
        },
        epochs=[row.epoch for row in history],
        curves=_curves(history),
        settings=_settings(config),
        command=_command(config),
    )
    write_progress(run.report, progress)


def _title(config: RunConfig) -> str:
    return f"{config.recipe.model} on {Path(config.data).name}"


def _curves(history: Sequence[EpochResult]) -> list[MetricCurve]:
    """One plot for each axis, of its training and its validation metric; not all axes have a training metric."""
    curves = []
    metrics = history[0].metrics
    for axis in dict.fromkeys(metric.axis for metric in metrics.values() if metric.axis is not None):
        names = {name.partition("_")[0]: name for name, metric in metrics.items() if metric.axis == axis}
        values = {split: [axis.scale * getattr(row, name) for row in history] for split, name in names.items()}
        curves.append(MetricCurve(axis.label, values.get("train", []), values["val"]))
    return curves


def _settings(config: RunConfig) -> dict[str, str]:
    """Return every setting, except the images, that determines the outcome."""
    return {
        **{name: str(value) for name, value in config.recipe.to_dict().items() if value not in (None, ())},
        **({"start": config.start} if config.start else {}),
        **({"epochs at first": ", ".join(map(str, config.earlier_epochs))} if config.earlier_epochs else {}),
        "threads": str(config.threads),
        "processor": processor_name(),
        "versions": f"ghostnets {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _choose_examples(
    run: RunFolder, checkpoint: Checkpoint, result: TrainingResult, evaluation: Evaluation | MultiLabelEvaluation
) -> dict[str, Sequence[PredictionExample]]:
    """The mistakes with the highest probability, the correct predictions with the lowest and the highest, and others.

    The others have the highest losses of all images: with several classes not the same as the most confident mistakes.
    """
    predictions = evaluation.predictions
    wrong: list[int] = predictions.mistakes().tolist()
    hits = predictions.correct.nonzero().flatten()
    correct: list[int] = hits[predictions.probabilities[hits].argsort(stable=True)].tolist()
    uncertain = correct[:UNCERTAIN]
    first = "highest loss" if evaluation.multi_label else "most confident"
    groups: dict[str, list[int]] = {
        f"Mistakes, the {first} first ({len(wrong):,} in all)": wrong[:MISTAKES],
        "Correct, the least certain": uncertain,
        "Correct, the most certain": correct[len(uncertain) :][: -CERTAIN - 1 : -1],
    }
    shown = {index for group in groups.values() for index in group}
    highest: list[int] = predictions.highest_losses()[:MISTAKES].tolist()
    if others := [index for index in highest if index not in shown]:
        groups[f"Other images with the highest losses of all {len(predictions.labels):,}"] = others
    return {
        heading: [_example(run, checkpoint, result.images, predictions, index) for index in indices]
        for heading, indices in groups.items()
    }


def _example(
    run: RunFolder,
    checkpoint: Checkpoint,
    images: ImageDataset,
    rows: ImagePredictions | LabelSetPredictions,
    index: int,
) -> PredictionExample:
    path = images.name(index)
    return PredictionExample(
        checkpoint.preprocessing.center(images[index]),
        *rows.describe(index, checkpoint.class_names),
        float(rows.probabilities[index]),
        printable(path),
        link_to_file(path, run.path),
    )


def _command(config: RunConfig) -> str:
    """Return the command line that repeats the run: the nearest named recipe, and the options that differ from it."""
    words = ["ghostnets", "train", relative_path(config.data) if Path(config.data).exists() else config.data]
    words += ["--task", config.task] if config.task != "classify" else []
    words += ["--full"] if config.full else []
    words += ["--root", config.root] if config.root else []
    words += ["--skip-corrupt"] if config.skip_corrupt else []
    max_pixels = config.preprocessing.max_pixels
    words += ["--max-pixels", str(max_pixels)] if max_pixels != Preprocessing.max_pixels else []
    name = min(RECIPES, key=lambda name: len(config.recipe.differences(RECIPES[name])))
    words += ["--recipe", name]
    for field, value in config.recipe.differences(RECIPES[name]).items():
        option = field.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{option}" if value else f"--no-{option}"]
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
