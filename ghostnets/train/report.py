"""``report.html`` of a run: its content, gathered for the pages of ``ghostnets.explain``."""

import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from ghostnets import __version__
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.explain import (
    ClassMetrics,
    MetricCurve,
    PredictionExample,
    RunProgress,
    RunReport,
    compute_savings,
    write_progress,
    write_report,
)
from ghostnets.measure import processor_name
from ghostnets.models import create_model, model_arguments
from ghostnets.train.metrics import METRICS, SELECTION, EpochResult, best_epoch, format_minutes
from ghostnets.train.recipes import RECIPES
from ghostnets.train.result import TrainingResult
from ghostnets.train.run_config import RunConfig
from ghostnets.train.run_folder import RunFolder

__all__ = ["describe_evaluation", "write_live_report", "write_run_report"]

CORRECT_EXAMPLES, WRONG_EXAMPLES = 12, 6
CANDIDATES, BATCH_SIZE = 512, 32  # images from which the examples are chosen


def describe_evaluation(result: TrainingResult) -> str:
    """One sentence on the images of the evaluation, and on whether it is optimistic."""
    images = result.evaluation.images
    if result.split == "test":
        return f"Measured on the {images:,} test images, on which nothing was chosen."
    return (
        f"Measured on the {images:,} validation images, on which the best epoch was also chosen, so the figures are a"
        " little optimistic."
    )


def write_run_report(run: RunFolder, result: TrainingResult) -> None:
    """Write ``report.html`` of a finished run.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    config, checkpoint = run.read_config(), read_checkpoint(run.best)
    model, preprocessing = checkpoint.build().to(memory_format=torch.channels_last), checkpoint.preprocessing
    input_shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    plain = None
    if "ratio" in model_arguments(checkpoint.architecture):
        plain = create_model(checkpoint.architecture, **{**checkpoint.arguments, "ratio": 1})
    savings = compute_savings(model, plain, input_shape)
    evaluation, history = result.evaluation, result.history
    examples = _choose_examples(model, checkpoint, result)
    first = next((example for example in examples if example.is_correct), examples[0])
    report = RunReport(
        title=_title(config),
        summary=f"{len(evaluation.classes)} classes, images of {' x '.join(map(str, input_shape))}."
        f" {describe_evaluation(result)}"
        + (f" {len(result.skipped)} unreadable images were left out." if result.skipped else ""),
        figures={
            f"top-1 ({result.split})": f"{evaluation.top1:.1%}",
            **({f"top-5 ({result.split})": f"{evaluation.top5:.1%}"} if len(evaluation.classes) > 5 else {}),
            "parameters": f"{savings.params / 1e6:.2f} M",
            "multiply-adds": f"{savings.macs / 1e6:.1f} M",
            "training": f"{format_minutes(result.seconds)} min",
        },
        epochs=[row.epoch for row in history],
        curves=_curves(history),
        classes=[ClassMetrics(c.name, c.images, c.recall, c.precision) for c in evaluation.classes],
        confusion=evaluation.confusion,
        evaluated_on=describe_evaluation(result),
        examples=examples,
        model=model,
        example_input=preprocessing.normalize(first.pixels[None]),
        example_pixels=first.pixels,
        savings=savings,
        settings={"best epoch": str(result.best_epoch), **_settings(config)},
        command=_command(config),
    )
    write_report(run.report, report)


def write_live_report(run: RunFolder) -> None:
    """Write ``report.html`` of a run in progress, after its last finished epoch; raises as ``write_run_report``."""
    config, history = run.read_config(), run.read_metrics()
    last, best = history[-1], best_epoch(history)
    left = last.seconds / last.epoch * (config.recipe.epochs - last.epoch)
    progress = RunProgress(
        title=_title(config),
        done=last.epoch,
        total=config.recipe.epochs,
        figures={
            METRICS[SELECTION].label: last.format(SELECTION),
            f"best, epoch {best.epoch}": best.format(SELECTION),
            **{metric.label: last.format(name) for name, metric in METRICS.items() if metric.axis is None},
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
    """One plot for each axis, of its training and its validation metric."""
    curves = []
    for axis in dict.fromkeys(metric.axis for metric in METRICS.values() if metric.axis is not None):
        train, val = (
            next(name for name, metric in METRICS.items() if metric.axis == axis and name.startswith(split))
            for split in ("train_", "val_")
        )
        training, validation = ([axis.scale * getattr(row, name) for row in history] for name in (train, val))
        curves.append(MetricCurve(axis.label, training, validation))
    return curves


def _settings(config: RunConfig) -> dict[str, str]:
    """Everything besides the images that determines the outcome."""
    return {
        **{name: str(value) for name, value in config.recipe.to_dict().items() if value not in (None, ())},
        "threads": str(config.threads),
        "processor": processor_name(),
        "versions": f"ghostnets {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


@torch.inference_mode()
def _choose_examples(model: torch.nn.Module, checkpoint: Checkpoint, result: TrainingResult) -> list[PredictionExample]:
    """Random correct predictions, and the mistakes with the highest probability."""
    images, names, preprocessing = result.images, checkpoint.class_names, checkpoint.preprocessing
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:CANDIDATES]
    examples = []
    for indices in chosen.split(BATCH_SIZE):
        pixels = torch.stack([preprocessing.center(images[i]) for i in indices.tolist()])
        values, predictions = model(preprocessing.normalize(pixels)).float().softmax(1).max(1)
        truths = images.labels[indices].tolist()
        for image, truth, prediction, value in zip(pixels, truths, predictions.tolist(), values.tolist(), strict=True):
            examples.append(PredictionExample(image, names[truth], names[prediction], value))
    correct = [example for example in examples if example.is_correct][:CORRECT_EXAMPLES]
    wrong = sorted((e for e in examples if not e.is_correct), key=lambda e: -e.probability)[:WRONG_EXAMPLES]
    return correct + wrong


def _command(config: RunConfig) -> str:
    """The command line that repeats the run: the nearest named recipe, and the options that differ from it."""
    words = ["ghostnets", "train", os.path.relpath(config.data) if Path(config.data).is_dir() else config.data]
    words += ["--full"] if config.full else []
    words += ["--root", config.root] if config.root else []
    words += ["--skip-corrupt"] if config.skip_corrupt else []
    name = min(RECIPES, key=lambda name: len(config.recipe.differences(RECIPES[name])))
    words += ["--recipe", name]
    for field, value in config.recipe.differences(RECIPES[name]).items():
        option = field.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{option}" if value else f"--no-{option}"]
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
