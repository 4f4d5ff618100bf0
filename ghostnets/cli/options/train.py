"""Options of ``ghostnets train``."""

import argparse
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput, show
from ghostnets.cli.options.checks import WEIGHTS, check_at_least, check_choices, check_data
from ghostnets.data import EMBEDDED, TASKS
from ghostnets.devices import check_device_name
from ghostnets.errors import CheckpointError, ConfigurationError, RunError, require_installed
from ghostnets.files import find_checkpoint
from ghostnets.models.names import DETECTOR_NAMES, SEGMENTER_NAMES, resolve_name
from ghostnets.preprocessing import MAX_PIXELS
from ghostnets.train import RECIPES, Recipe, named_recipe
from ghostnets.train.optimizers import OPTIMIZERS

__all__ = ["LIBRARIES", "TrainCommand"]

DEFAULT_RECIPE = "transfer"  # whose values are shown; without --recipe, data and weights select one
LIBRARIES = ("tensorboard", "matplotlib", "jinja2")  # libraries of the extra "train"


def _recipe_help() -> dict[str, str]:
    """Text of each field in the docstring of ``Recipe``."""
    assert Recipe.__doc__ is not None
    text = inspect.cleandoc(Recipe.__doc__)  # from Python 3.13 on, the compiler does this
    entries = re.findall(
        r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", text.split("Attributes:")[1], flags=re.MULTILINE | re.DOTALL
    )
    return {name: re.sub(r"\s+", " ", text).strip().replace("``", "") for name, text in entries}


def _given(option: str, arguments: list[str]) -> str | None:
    """Value of an option, or None if it is not given."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument(option, dest="value")
    value: str | None = peek.parse_known_args(arguments)[0].value
    return value


def _spell_flip(arguments: list[str]) -> Iterator[str]:
    """Spell out ``--flip`` without a value, and ``--no-flip``, as they were when flips were horizontal or none."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == "--no-flip":
            yield "--flip=none"
        elif argument == "--flip" and following not in get_args(Recipe.__annotations__["flip"]):
            yield "--flip=horizontal"
        else:
            yield argument


def _as_options(cls: type[Recipe]) -> type[Recipe]:
    """Give the fields of the recipe their help; switches can be set both ways, whatever the recipe has."""
    kinds = {**Recipe.__annotations__, "optimizer": str}  # its name is checked later, with close matches
    metavars = {"optimizer": f"{{{','.join(OPTIMIZERS)}}}"}
    cls.__annotations__ = {
        name: show(kinds[name], help=text, pair=kinds[name] is bool, metavar=metavars.get(name))
        for name, text in _recipe_help().items()
    }
    return dataclass(frozen=True)(cls)


@_as_options
class RecipeOptions(Recipe):
    """Everything that determines the result besides the images. Durations are shares of the run."""


@dataclass(frozen=True)
class TrainCommand(CommandOptions):
    """Train a network on images and write runs/NAME/: checkpoint, metrics, TensorBoard logs and report.html.

    Options of the recipe that are not given come from --recipe. Without it, images of up to 64 pixels are trained by
    "small-images" and photographs by "transfer" (whose values are shown here), which starts from published weights if
    they are cached or can be downloaded, else from those that come with the package; networks without such weights, and
    --weights none, by "photos". Labelled boxes are trained by "detect", masks by "segment". Several processes:
    docs/training.md.

    Examples: ghostnets train | ghostnets train photos/ --epochs 60 | ghostnets train --resume runs/photos-ghostnet_100
    """

    command: ClassVar[str] = "train"

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = EMBEDDED
    """Folder with train/ and val/ or test/, or with one subfolder per class; table of labels (.csv); tars; archive or
    its URL; folder or URL of shards (ghostnets shard); hf://datasets/OWNER/NAME from the cache; "fashion-mnist" is the
    embedded set."""
    data_option: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Data, as an option instead of DATA."""
    task: Annotated[str | None, tyro.conf.arg(metavar="{classify,detect,segment}")] = None
    """classify, detect for images with labelled boxes (YOLO, Pascal VOC, COCO), or segment for images with masks (PNG);
    by default found from the layout."""
    name: str | None = None
    """Name of the run, whose folder is --runs-dir/NAME; by default data and model, numbered."""
    runs_dir: Path = Path("runs")
    """Folder of the runs."""
    resume: Path | None = None
    """Resume the run in this folder. --data is needed if its images have moved, --epochs trains it to another number
    of epochs, a finished run too; no other option but --json."""
    repeat: Path | None = None
    """Repeat the run in this folder from its start; --data if its images have moved; no other option but --name,
    --runs-dir and --json."""
    find_lr: bool = False
    """Suggest a learning rate by a range test of up to 100 steps instead of training; saves the curve in --runs-dir."""
    recipe_name: Annotated[str | None, tyro.conf.arg(name="recipe", metavar=f"{{{','.join(RECIPES)}}}")] = None
    """Recipe that gives the options which are not given; by default the one for the images, as above."""
    full: bool = False
    """With fashion-mnist: all 70,000 images, downloaded by torchvision or read from --root."""
    root: Path | None = None
    """With --full: folder of the four *-ubyte.gz files."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    device: str = "auto"
    """Device: cuda, mps, xpu, one of several (cuda:1), or cpu; auto is an accelerator if there is one."""
    threads: int | None = None
    """Number of threads of a process; by default all processors, or OMP_NUM_THREADS."""
    workers: int | None = None
    """Processes that read images during training, 0 to read between two steps; by default up to 8 on an accelerator and
    0 on a CPU."""
    json: JsonOutput = False
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["transfer"]

    @classmethod
    def parse(cls, arguments: list[str], *, default: Self | None = None) -> Self:
        """Parse the arguments; a recipe that they name gives the defaults of its options."""
        values = RecipeOptions(**named_recipe(_given("--recipe", arguments) or DEFAULT_RECIPE).to_dict())
        command = super().parse(list(_spell_flip(arguments)), default=replace(cls(), recipe=values))
        changed = {} if command.recipe.weights not in ("none", "None") else {"weights": None}
        return command.with_arguments(arguments, recipe=Recipe(**{**command.recipe.to_dict(), **changed}))

    def changes(self) -> dict[str, Any]:
        """The recipe options that are given."""
        options = {argument.partition("=")[0].replace("_", "-") for argument in self.arguments}
        given = {re.sub("^--(no-)?", "", option).replace("-", "_") for option in options if option.startswith("--")}
        return {name: value for name, value in self.recipe.to_dict().items() if name in given}

    @property
    def source(self) -> str:
        """The data, by either option."""
        if self.data_option is None:
            return self.data
        if self.data not in (EMBEDDED, self.data_option):
            raise ConfigurationError(f"DATA is given twice: {self.data} and --data {self.data_option}; pass it once.")
        return self.data_option

    @property
    def new_data(self) -> str | None:
        """Data given for a run that has its own, or None."""
        return None if self == self._without_data() else self.source

    @property
    def new_epochs(self) -> int | None:
        """Number of epochs given for a run that has its own, or None."""
        return self.recipe.epochs if _given("--epochs", list(self.arguments)) else None

    def _without_data(self) -> "TrainCommand":
        return replace(self, data=EMBEDDED, data_option=None)

    @property
    def folder(self) -> Path | None:
        """Folder of the new run, if it is named."""
        return self.runs_dir / self.name if self.name else None

    def check(self) -> None:
        check_at_least("--max-pixels", self.max_pixels, 1)
        if self.name is not None and (not self.name or Path(self.name).name != self.name):
            raise ConfigurationError(
                f"--name is {self.name!r}; it must be a name without folders, for {self.runs_dir}/NAME."
            )
        check_at_least("--threads", self.threads, 1)
        check_at_least("--workers", self.workers, 0)
        check_device_name(self.device)
        unset, rest = TrainCommand(), replace(self._without_data(), json=False)
        resumed = replace(rest, resume=None, recipe=self.recipe.changed(epochs=unset.recipe.epochs))
        if self.resume is not None and resumed != unset:
            raise ConfigurationError(
                "--resume takes everything from the run's folder; omit all options but --data and --epochs, or start a"
                " new run."
            )
        if self.repeat is not None and replace(rest, repeat=None, name=None, runs_dir=unset.runs_dir) != unset:
            raise ConfigurationError(
                "--repeat takes everything from the run's folder; omit all options but --name, --runs-dir and --data."
            )
        require_installed(*LIBRARIES, extra="train")
        for folder in (self.resume, self.repeat):
            if folder is not None and not (folder / "config.json").is_file():
                raise RunError(f"{folder} holds no training run; pass a folder such as runs/NAME.")
        if self.new_data is not None or (self.resume is None and self.repeat is None):
            check_data(self.source)
        if self.resume is None and self.repeat is None:
            check_choices("task", [self.task] if self.task else [], TASKS)
            if self.recipe.model not in DETECTOR_NAMES | SEGMENTER_NAMES:
                resolve_name(self.recipe.model)
            self._check_weights()

    def _check_weights(self) -> None:
        weights = self.recipe.weights
        if weights is None or "://" in weights or find_checkpoint(weights).exists():
            return
        if Path(weights).suffix in WEIGHTS or "/" in weights:
            raise CheckpointError(
                f"there is no checkpoint {weights}; pass a file, or the folder of a run, to --weights."
            )
