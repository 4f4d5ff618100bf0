"""``ghostnets train [DATA]``: images in; a network, its figures and a report out."""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ghostnets.cli.output import print_json, progress_console, result_console
from ghostnets.cli.run_report import minutes, part_sentence, write_live_report, write_run_report
from ghostnets.data import EMBEDDED, open_data
from ghostnets.errors import ConfigurationError, require
from ghostnets.train import (
    RECIPES,
    EpochResult,
    Recipe,
    Reporter,
    RunFolder,
    TrainingResult,
    named_recipe,
    recipe_for,
    repeat_training,
    resume_training,
    train_model,
)

__all__ = ["main"]

REPORT_SECONDS = 20  # while training, report.html is written at most so often


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class TrainCommand:
    """Train a network on images and write runs/NAME/: checkpoint, metrics, TensorBoard logs and report.html.

    Options of the recipe that are not given come from --recipe, or from the recipe for the size of the images:
    "small-images" up to 64 pixels, else "photos" (whose values are shown here). Several processes: docs/training.md.

    Examples: ghostnets train | ghostnets train photos/ --epochs 60 | ghostnets train --resume runs/photos-ghostnet_100
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = EMBEDDED
    """A folder with train/ and val/ or test/, or with one folder a class; a folder or address of shards (ghostnets
    shard); "fashion-mnist" is the embedded set."""
    data_option: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """The same as DATA, by name."""
    name: str | None = None
    """Name of the run; its folder is runs/NAME. By default data and model, numbered."""
    resume: Path | None = None
    """Go on with the stopped run in this folder, as if nothing had happened; takes no other option but --json."""
    repeat: Path | None = None
    """Do the run in this folder again from its beginning; takes no other option but --name and --json."""
    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """Name of a recipe: photos, small-images, cifar10, cifar10-fast, imagenet-ghostnet, imagenet-ghostnetv2,
    imagenet-ghostnetv3, finetune or finetune-head."""
    full: bool = False
    """With fashion-mnist: all 70,000 images, downloaded by torchvision, or read from --root."""
    root: Path | None = None
    """With --full: a folder that holds the four *-ubyte.gz files."""
    skip_corrupt: bool = False
    """Go on without images that cannot be read, and say how many."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    workers: int = 0
    """Processes that read images beside the training, as a GPU needs them; 0 to read between two steps."""
    json: bool = False
    """Print the result as JSON on stdout."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["photos"]


def main(arguments: list[str]) -> int:
    command = _parse(arguments)
    for library in ("torchmetrics", "tensorboard", "matplotlib", "jinja2"):
        require(library, extra="train")  # found out now, not after an hour of training
    if command.name is not None and (not command.name or Path(command.name).name != command.name):
        raise ConfigurationError(f"--name is {command.name!r}; it must be a name without folders: runs/NAME is made.")
    folder = Path("runs", command.name) if command.name else None
    with ProgressBars() as bars:
        if command.resume is not None:
            if replace(command, resume=None, json=False) != TrainCommand():
                raise ConfigurationError(
                    "--resume takes everything from the run's folder; leave the other options out, or start a new run."
                )
            result = resume_training(command.resume, reporter=bars)
        elif command.repeat is not None:
            if replace(command, repeat=None, name=None, json=False) != TrainCommand():
                raise ConfigurationError(
                    "--repeat takes everything from the run's folder; leave the other options out but --name."
                )
            result = repeat_training(command.repeat, into=folder, reporter=bars)
        else:
            result = train_model(
                command.data,
                folder=folder,
                recipe=command.recipe,
                full=command.full,
                root=command.root,
                skip_corrupt=command.skip_corrupt,
                device=command.device,
                workers=command.workers,
                reporter=bars,
            )
    if int(os.environ.get("RANK", 0)):
        return 0  # one of several processes, and not the first, which writes
    run = RunFolder(result.folder)
    write_run_report(run, result)
    if command.json:
        print_json({**result.to_dict(), "report": str(run.report)})
    else:
        _print_result(run, result)
    return 0


def _parse(arguments: list[str]) -> TrainCommand:
    """The command, with the recipe's own values as defaults of its options."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--recipe")
    name = peek.parse_known_args(arguments)[0].recipe
    recipe = RECIPES["photos"] if name is None else named_recipe(name)
    command = tyro.cli(
        TrainCommand, prog="ghostnets train", args=arguments, default=replace(TrainCommand(), recipe=recipe)
    )
    if command.resume is not None or command.repeat is not None:
        return command
    data = command.data
    if command.data_option is not None:
        if data not in (EMBEDDED, command.data_option):
            raise ConfigurationError(f"DATA is given twice: {data} and --data {command.data_option}; give it once.")
        data = command.data_option
    if name is None:
        source = open_data(
            data, full=command.full, root=command.root, val_share=command.recipe.val_share, seed=command.recipe.seed
        )
        recipe = RECIPES[recipe_for(command.recipe.image_size or source.typical_size)]
        command = tyro.cli(
            TrainCommand, prog="ghostnets train", args=arguments, default=replace(TrainCommand(), recipe=recipe)
        )
    return replace(command, data=data, data_option=None)


class ProgressBars(Reporter):
    """Progress as bars on a terminal, and as one line an epoch everywhere."""

    def __init__(self) -> None:
        self.console = progress_console()
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self.task = self.bars.add_task("", total=None, facts="", visible=False)

    def __enter__(self) -> "ProgressBars":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def reading(self, total: int) -> None:
        self.bars.reset(self.task, total=total, description="reading images", visible=True)

    def image_read(self) -> None:
        self.bars.advance(self.task)

    def started(self, description: str, *, folder: Path, epoch: int, epochs: int, steps: int) -> None:
        self.run, self.reported = RunFolder(folder), 0.0
        again = f", going on in epoch {epoch + 1}" if epoch else ""
        self.console.print(f"{description}, {epochs} epochs of {steps} steps{again}")
        self.epochs, self.steps = epochs, steps
        # The bar spans the run, so that the time left is that of the run.
        self.bars.reset(self.task, total=epochs * steps, completed=epoch * steps, description="training", visible=True)

    def step(self, *, epoch: int, step: int, loss: float, top1: float, images_per_second: float) -> None:
        self.bars.update(
            self.task,
            completed=epoch * self.steps + step + 1,
            description=f"epoch {epoch + 1}/{self.epochs}",
            facts=f"loss {loss:.3f}  top-1 {top1:.1%}  {images_per_second:.0f} images/s",
        )

    def epoch(self, result: EpochResult, *, is_best: bool) -> None:
        self.console.print(
            f"epoch {result.epoch:>3}  train loss {result.train_loss:.3f}  val loss {result.val_loss:.3f}"
            f"  val top-1 {result.val_top1:7.2%}  {result.images_per_second:5.0f} images/s"
            f"  {minutes(result.seconds)}{'  best' if is_best else ''}",
            soft_wrap=True,
        )
        if time.monotonic() - self.reported > REPORT_SECONDS:
            write_live_report(self.run)
            self.reported = time.monotonic()

    def note(self, sentence: str) -> None:
        self.console.print(sentence, soft_wrap=True)


def _print_result(run: RunFolder, result: TrainingResult) -> None:
    console = result_console()
    evaluation = result.evaluation
    console.print(f"{result.part} top-1   {evaluation.top1:.2%}   (best epoch: {result.best_epoch})")
    if len(evaluation.classes) > 5:
        console.print(f"{result.part} top-5   {evaluation.top5:.2%}")
    console.print(part_sentence(result), soft_wrap=True)
    if result.skipped:
        console.print(f"{len(result.skipped)} unreadable images were left out.")
    console.print(f"time         {minutes(result.seconds)} minutes of training and validation")
    console.print(f"checkpoint   {run.best}", soft_wrap=True)
    console.print(f"report       {run.report}", soft_wrap=True)
