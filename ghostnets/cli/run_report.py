"""The report of a training run: gathers what ``explain.write_report`` shows."""

import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from ghostnets import __version__
from ghostnets.artefacts import Classifier, load_classifier, top_k
from ghostnets.artefacts.classifier import BATCH_SIZE
from ghostnets.checkpoints import read_checkpoint
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
from ghostnets.train import RECIPES, EpochResult, Recipe, RunConfig, RunFolder, TrainingResult

__all__ = ["minutes", "part_sentence", "write_live_report", "write_run_report"]

RIGHT_EXAMPLES, WRONG_EXAMPLES = 12, 6


def minutes(seconds: float) -> str:
    """
    >>> minutes(605)
    '10:05'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def part_sentence(result: TrainingResult) -> str:
    """What the evaluation was measured on, and whether that flatters it."""
    if result.part == "test":
        return f"Measured on the {result.evaluation.images:,} test images, on which nothing was chosen."
    return (
        f"Measured on the {result.evaluation.images:,} validation images, on which the best epoch was chosen as well,"
        " so the figures are a little optimistic."
    )


def write_run_report(run: RunFolder, result: TrainingResult) -> None:
    """Writes ``runs/NAME/report.html``."""
    config = run.read_config()
    checkpoint = read_checkpoint(run.best)
    preprocessing = checkpoint.preprocessing
    input_shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    plain = None
    if "ratio" in model_arguments(checkpoint.architecture):
        plain = create_model(checkpoint.architecture, **{**checkpoint.arguments, "ratio": 1})
    model = checkpoint.build()
    savings = compute_savings(model, plain, input_shape)
    evaluation, history = result.evaluation, result.history
    examples = _examples(load_classifier(run.best), result)
    first = next((example for example in examples if example.is_correct), examples[0])
    report = RunReport(
        title=f"{config.recipe.model} on {Path(config.data).name}",
        summary=f"{len(evaluation.classes)} classes, images of {' x '.join(map(str, input_shape))}."
        f" {part_sentence(result)}"
        + (f" {len(result.skipped)} unreadable images were left out." if result.skipped else ""),
        figures={
            f"top-1 ({result.part})": f"{evaluation.top1:.1%}",
            **({f"top-5 ({result.part})": f"{evaluation.top5:.1%}"} if len(evaluation.classes) > 5 else {}),
            "parameters": f"{savings.params / 1e6:.2f} M",
            "multiply-adds": f"{savings.macs / 1e6:.1f} M",
            "training": f"{minutes(result.seconds)} min",
        },
        epochs=[row.epoch for row in history],
        curves=_curves(history),
        classes=[ClassMetrics(c.name, c.images, c.recall, c.precision) for c in evaluation.classes],
        confusion=evaluation.confusion,
        evaluated_on=part_sentence(result),
        examples=examples,
        model=model,
        example_input=preprocessing.normalize(first.pixels[None]),
        example_pixels=first.pixels,
        savings=savings,
        settings={"best epoch": str(result.best_epoch), **_settings(config)},
        command=_command(config.data, config.recipe, full=config.full, root=config.root, skip=config.skip_corrupt),
    )
    write_report(run.report, report)


def write_live_report(run: RunFolder) -> None:
    """Writes ``runs/NAME/report.html`` of a run that goes on: what is known of it after the last epoch."""
    config, history = run.read_config(), run.read_metrics()
    last, best = history[-1], max(history, key=lambda row: row.val_top1)
    left = last.seconds / last.epoch * (config.recipe.epochs - last.epoch)
    progress = RunProgress(
        title=f"{config.recipe.model} on {Path(config.data).name}",
        done=last.epoch,
        total=config.recipe.epochs,
        figures={
            "top-1 (val)": f"{last.val_top1:.1%}",
            f"best, epoch {best.epoch}": f"{best.val_top1:.1%}",
            "images/s": f"{last.images_per_second:.0f}",
            "time": f"{minutes(last.seconds)} min",
            "time left": f"{minutes(left)} min",
        },
        epochs=[row.epoch for row in history],
        curves=_curves(history),
        settings=_settings(config),
        command=_command(config.data, config.recipe, full=config.full, root=config.root, skip=config.skip_corrupt),
    )
    write_progress(run.report, progress)


def _curves(history: Sequence[EpochResult]) -> list[MetricCurve]:
    return [
        MetricCurve("loss (nats)", [row.train_loss for row in history], [row.val_loss for row in history]),
        MetricCurve(
            "top-1 accuracy (%)", [100 * row.train_top1 for row in history], [100 * row.val_top1 for row in history]
        ),
    ]


def _settings(config: RunConfig) -> dict[str, str]:
    """Everything that the outcome depends on, besides the images."""
    return {
        **{name: str(value) for name, value in config.recipe.to_dict().items() if value not in (None, ())},
        "threads": str(config.threads),
        "processor": processor_name(),
        "versions": f"ghostnets {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _examples(classifier: Classifier, result: TrainingResult) -> list[PredictionExample]:
    """A random choice of right answers, and the mistakes with the highest probability."""
    images, names, preprocessing = result.images, classifier.class_names, classifier.model.description.preprocessing
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(images), generator=generator)[:512].tolist()
    examples = []
    for start in range(0, len(chosen), BATCH_SIZE):
        indices = chosen[start : start + BATCH_SIZE]
        pixels = torch.stack([preprocessing.center(images[i]) for i in indices])
        labels, values = top_k(classifier.run(pixels.permute(0, 2, 3, 1).numpy()).scores, 1)
        truths = images.labels[indices].tolist()
        best = zip(labels[:, 0].tolist(), values[:, 0].tolist(), strict=True)
        for image, truth, (label, value) in zip(pixels, truths, best, strict=True):
            examples.append(PredictionExample(image, names[truth], names[label], value))
    right = [example for example in examples if example.is_correct][:RIGHT_EXAMPLES]
    wrong = sorted((e for e in examples if not e.is_correct), key=lambda e: -e.probability)[:WRONG_EXAMPLES]
    return right + wrong


def _command(data: str, recipe: Recipe, *, full: bool, root: str | None, skip: bool) -> str:
    words = ["ghostnets", "train", os.path.relpath(data) if Path(data).is_dir() else data]
    words += ["--full"] if full else []
    words += ["--root", root] if root else []
    words += ["--skip-corrupt"] if skip else []
    name = min(RECIPES, key=lambda name: len(recipe.differences(RECIPES[name])))
    words += ["--recipe", name]
    for field, value in recipe.differences(RECIPES[name]).items():
        option = field.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{option}" if value else f"--no-{option}"]
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
