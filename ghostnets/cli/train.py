"""``ghostnets train [DATA]``: train a network on images and report on it."""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ghostnets.cli.output import print_json, result_console
from ghostnets.data import EMBEDDED, DataSpec
from ghostnets.errors import ConfigurationError
from ghostnets.train import (
    RECIPES,
    Recipe,
    RunFolder,
    TrainingResult,
    describe_evaluation,
    format_minutes,
    list_warnings,
    named_recipe,
    repeat_training,
    resume_training,
    train_model,
)

__all__ = ["main"]

DEFAULT_RECIPES = ("transfer", "photos", "small-images")  # one of them, by images and weights, without --recipe


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class TrainCommand:
    """Train a network on images and write runs/NAME/: checkpoint, metrics, TensorBoard logs and report.html.

    Options of the recipe that are not given come from --recipe. Without it, images of up to 64 pixels are trained by
    "small-images" and photographs by "transfer" (whose values are shown here), which starts from the weights that come
    with the package; networks without such weights, and --weights none, by "photos". Several processes:
    docs/training.md.

    Examples: ghostnets train | ghostnets train photos/ --epochs 60 | ghostnets train --resume runs/photos-ghostnet_100
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = EMBEDDED
    """Folder with train/ and val/ or test/, or with one subfolder per class; folder or URL of shards (ghostnets shard);
    "fashion-mnist" is the embedded set."""
    data_option: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """The same as DATA, by name."""
    name: str | None = None
    """Name of the run, whose folder is runs/NAME. By default data and model, numbered."""
    resume: Path | None = None
    """Resume the run in this folder. --data is needed if its images have moved, --epochs trains it to another number
    of epochs, a finished run too; no other option but --json."""
    repeat: Path | None = None
    """Repeat the run in this folder from its start; --data if its images have moved; no other option but --name and
    --json."""
    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe")] = None
    """Name of a recipe: transfer, photos, small-images, cifar10, cifar10-fast, imagenet-ghostnet, imagenet-ghostnetv2,
    imagenet-ghostnetv3, finetune or finetune-head."""
    full: bool = False
    """With fashion-mnist: all 70,000 images, downloaded by torchvision or read from --root."""
    root: Path | None = None
    """With --full: folder of the four *-ubyte.gz files."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    device: str = "auto"
    """Device: cuda, mps, xpu, one of several (cuda:1), or cpu; auto is an accelerator if there is one."""
    workers: int | None = None
    """Processes that read images during training, 0 to read between two steps; by default up to 8 on an accelerator and
    0 on a CPU."""
    json: bool = False
    """Print the result as JSON on stdout."""
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["transfer"]


def main(arguments: list[str]) -> int:
    command = _parse(arguments, _recipe_name(arguments) or DEFAULT_RECIPES[0])
    if command.name is not None and (not command.name or Path(command.name).name != command.name):
        raise ConfigurationError(f"--name is {command.name!r}; it must be a name without folders, for runs/NAME.")
    folder = Path("runs", command.name) if command.name else None
    if command.resume is not None:
        epochs = command.recipe.epochs if _given("--epochs", arguments) else None
        recipe = command.recipe.changed(epochs=TrainCommand().recipe.epochs)
        if replace(_without_data(command), resume=None, json=False, recipe=recipe) != TrainCommand():
            raise ConfigurationError(
                "--resume takes everything from the run's folder; omit all options but --data and --epochs, or start a"
                " new run."
            )
        result = resume_training(command.resume, data=_new_data(command), epochs=epochs)
    elif command.repeat is not None:
        if replace(_without_data(command), repeat=None, name=None, json=False) != TrainCommand():
            raise ConfigurationError(
                "--repeat takes everything from the run's folder; omit all options but --name and --data."
            )
        result = repeat_training(command.repeat, into=folder, data=_new_data(command))
    else:
        data = DataSpec(_data(command), full=command.full, root=command.root, skip_corrupt=command.skip_corrupt)
        options: dict[str, Any] = {"folder": folder, "device": command.device, "workers": command.workers}
        if command.recipe_name is None:
            result = train_model(data, **options, **_changes(arguments))
        else:
            result = train_model(data, **options, recipe=command.recipe)
    if int(os.environ.get("RANK", 0)):
        return 0  # process 0 prints
    run = RunFolder(result.folder)
    if command.json:
        print_json({**result.to_dict(), "report": str(run.report)})
    else:
        _print_result(run, result)
    return 0


def _recipe_name(arguments: list[str]) -> str | None:
    return _given("--recipe", arguments)


def _given(option: str, arguments: list[str]) -> str | None:
    """Value of an option, or None if it is not given."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument(option, dest="value")
    value: str | None = peek.parse_known_args(arguments)[0].value
    return value


def _parse(arguments: list[str], recipe: str) -> TrainCommand:
    """The command, with the values of a named recipe as defaults of its options."""
    default = replace(TrainCommand(), recipe=named_recipe(recipe))
    command = tyro.cli(TrainCommand, prog="ghostnets train", args=arguments, default=default)
    if command.recipe.weights in ("none", "None"):
        command = replace(command, recipe=command.recipe.changed(weights=None))
    return command


def _changes(arguments: list[str]) -> dict[str, Any]:
    """The recipe options given: the fields that do not depend on the recipe from which defaults are taken."""
    first, *others = (_parse(arguments, name).recipe for name in DEFAULT_RECIPES)
    differing = {name for other in others for name in first.differences(other)}
    return {name: value for name, value in first.to_dict().items() if name not in differing}


def _without_data(command: TrainCommand) -> TrainCommand:
    return replace(command, data=EMBEDDED, data_option=None)


def _new_data(command: TrainCommand) -> str | None:
    """Data given for a run that names its own, or None."""
    return None if command == _without_data(command) else _data(command)


def _data(command: TrainCommand) -> str:
    if command.data_option is None:
        return command.data
    if command.data not in (EMBEDDED, command.data_option):
        raise ConfigurationError(f"DATA is given twice: {command.data} and --data {command.data_option}; give it once.")
    return command.data_option


def _print_result(run: RunFolder, result: TrainingResult) -> None:
    console = result_console()
    evaluation = result.evaluation
    console.print(f"{result.split} top-1   {evaluation.format_top1()}   (best epoch: {result.best_epoch})")
    if len(evaluation.classes) > 5:
        console.print(f"{result.split} top-5   {evaluation.format_top5()}")
    console.print(" ".join([describe_evaluation(result), *list_warnings(result)]), soft_wrap=True, markup=False)
    if result.skipped:
        console.print(f"unreadable images left out: {len(result.skipped)}")
    console.print(f"time         {format_minutes(result.seconds)} minutes of training and validation")
    console.print(f"checkpoint   {run.best}", soft_wrap=True)
    console.print(f"report       {run.report}", soft_wrap=True)
