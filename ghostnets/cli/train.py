"""``ghostnets train [DATA]``: train a network on images and report on it."""

import os
import shlex
from typing import Any

import torch

from ghostnets.cli.options.train import TrainCommand
from ghostnets.cli.output import download_progress, message, print_json, result_console
from ghostnets.data import DataSpec
from ghostnets.devices import select_device
from ghostnets.explain.figures import learning_rate_figure, save_figure
from ghostnets.files import write_atomically
from ghostnets.native import TRAINING, missing_native
from ghostnets.train import (
    RunFolder,
    TrainingResult,
    describe_evaluation,
    find_learning_rate,
    format_minutes,
    list_warnings,
    named_recipe,
    repeat_training,
    resume_training,
    train_model,
)

__all__ = ["run"]


def run(command: TrainCommand) -> int:
    missing = missing_native(TRAINING)
    if missing and select_device(command.device).type == "cpu" and not int(os.environ.get("RANK", 0)):
        message(missing)
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    if command.find_lr:
        return _find_learning_rate(command)
    if command.resume is not None:
        result = resume_training(command.resume, data=command.new_data, epochs=command.new_epochs)
    elif command.repeat is not None:
        result = repeat_training(command.repeat, into=command.folder, runs_dir=command.runs_dir, data=command.new_data)
    else:
        result = train_model(folder=command.folder, runs_dir=command.runs_dir, **_new_run(command))
    if int(os.environ.get("RANK", 0)):
        return 0  # process 0 prints
    run = RunFolder(result.folder)
    if command.json:
        print_json({**result.to_dict(), "report": str(run.report)})
    else:
        _print_result(run, result)
    return 0


def _new_run(command: TrainCommand) -> dict[str, Any]:
    """Arguments of ``train_model`` and ``find_learning_rate``."""
    # Without --recipe, the images determine the recipe whose options are changed.
    chosen = {} if command.recipe_name is None else {"recipe": named_recipe(command.recipe_name)}
    return {
        "data": DataSpec(
            command.source,
            full=command.full,
            root=command.root,
            skip_corrupt=command.skip_corrupt,
            max_pixels=command.max_pixels,
            progress=download_progress(),
            task=command.task,
        ),
        "device": command.device,
        "workers": command.workers,
        **chosen,
        **command.changes(),
    }


def _find_learning_rate(command: TrainCommand) -> int:
    found = find_learning_rate(**_new_run(command))
    picture = command.runs_dir / f"{found.name}-find-lr.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(picture) as temporary:
        save_figure(learning_rate_figure(found.rates, found.losses, found.suggestion), temporary, picture.suffix)
    if command.json:
        print_json({**found._asdict(), "picture": str(picture)})
        return 0
    console = result_console()
    console.print(
        f"suggestion   --lr {found.suggestion:g}, a tenth of the rate with the lowest loss, {found.best:.2g}"
        f" (the recipe has {found.current:g})",
        soft_wrap=True,
    )
    console.print(f"curve        {picture}", soft_wrap=True, markup=False)
    return 0


def _print_result(run: RunFolder, result: TrainingResult) -> None:
    console = result_console()
    evaluation = result.evaluation
    best = f"   (best epoch: {result.best_epoch})"
    for label, value in evaluation.headline().items():
        console.print(f"{result.split} {label}   {value}{best}")
        best = ""
    console.print(" ".join([describe_evaluation(result), *list_warnings(result)]), soft_wrap=True)
    if result.skipped:
        console.print(f"unreadable images left out: {len(result.skipped)}")
    console.print(f"time         {format_minutes(result.seconds)} minutes of training and validation")
    console.print(f"checkpoint   {run.best}", soft_wrap=True)
    console.print(f"report       {run.report}", soft_wrap=True)
    console.print(f"next         ghostnets predict {shlex.quote(str(run.best))} IMAGES", soft_wrap=True, markup=False)
