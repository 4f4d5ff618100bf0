"""ResolvedRecipe a run, going on with one, and doing one again."""

import os
from pathlib import Path

import torch

from ghostnets.data import open_data
from ghostnets.errors import ConfigurationError, require
from ghostnets.train.distributed import DistributedContext, init_distributed
from ghostnets.train.loop import Training
from ghostnets.train.network import resolve
from ghostnets.train.recipe import Recipe
from ghostnets.train.recipes import RECIPES, recipe_for
from ghostnets.train.reporter import Reporter
from ghostnets.train.result import TrainingResult
from ghostnets.train.run_folder import RunConfig, RunFolder

__all__ = ["repeat_training", "resume_training", "train_model"]


def train_model(
    data: str | os.PathLike[str] = "fashion-mnist",
    *,
    folder: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    full: bool = False,
    root: str | os.PathLike[str] | None = None,
    skip_corrupt: bool = False,
    device: str = "auto",
    workers: int = 0,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Trains a network on a folder of images, or on the embedded Fashion-MNIST subset.

    Started by torchrun, all processes train one network together; ``folder`` is then needed, so that all, and those
    that torchrun starts anew, mean the same run.

    Args:
        data: Path of a folder (``data.ImageFolder`` tells the layouts), or ``"fashion-mnist"``.
        folder: Where the run is kept; ``runs/DATA-MODEL``, numbered if that exists, by default.
        recipe: How to train; by default the one for the size of the images.
        full: Of Fashion-MNIST: all 70,000 images.
        root: With ``full``: the folder of their files.
        skip_corrupt: Go on without images that cannot be read.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for a GPU where there is one.
        workers: Processes that read images beside each one that trains, as GPUs need them; 0 to read between steps.
        reporter: Hears of the progress.

    Returns:
        The result, which also stands in ``folder`` (see ``RunFolder``).

    Raises:
        DataError: The images cannot be used.
        CheckpointError: The weights to begin with, or those of the teacher, cannot be used.
        ConfigurationError: The recipe cannot be used with them.
        RunError: The run folder exists, or the loss is not a number any more.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
        StorageError: A file could not be written.
    """
    source = open_data(data, full=full, root=root)
    recipe = recipe or RECIPES[recipe_for(source.typical_size)]
    recipe, arguments, preprocessing = resolve(
        recipe, typical_size=source.typical_size, channels=source.channels, num_classes=len(source.class_names)
    )
    config = RunConfig(
        data=str(data) if not Path(data).is_dir() else str(Path(data).resolve()),
        recipe=recipe,
        arguments=arguments,
        preprocessing=preprocessing.to_dict(),
        full=full,
        root=None if root is None else str(Path(root).resolve()),
        skip_corrupt=skip_corrupt,
        threads=torch.get_num_threads(),
        device=device,
        workers=workers,
    )
    if folder is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigurationError(
            "a run of several processes needs a name, so that all mean the same; give --name NAME."
        )
    return _begin(RunFolder(folder or _free_folder(f"{source.name}-{recipe.model}")), config, reporter)


def repeat_training(
    folder: str | os.PathLike[str],
    *,
    into: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Does a run again from its beginning, in a new folder: on the same machine to the same weights (CPU).

    Args:
        folder: Of the run that is repeated. Its ``config.json`` is enough; the images must be where they were.
        into: Folder of the new run; the old name, numbered, by default.
        reporter: Hears of the progress.

    Raises:
        RunError: ``folder`` holds no run.
        Others as ``train_model``.
    """
    config = RunFolder(folder).read_config()
    torch.set_num_threads(config.threads)
    return _begin(RunFolder(into or _free_folder(Path(folder).resolve().name)), config, reporter)


def resume_training(folder: str | os.PathLike[str], *, reporter: Reporter | None = None) -> TrainingResult:
    """Goes on with a stopped run as if nothing had happened: the final weights are the same, bit for bit (CPU).

    Everything comes from the run's folder, the number of torch's threads included, which is set for the process. The
    number of processes may be another one than before.

    Raises:
        RunError: The folder holds no run, or its state is damaged.
        Others as ``train_model``.
    """
    run = RunFolder(folder)
    _require_libraries()
    config = run.read_config()
    torch.set_num_threads(config.threads)
    with init_distributed(config.device) as distributed:
        return _go_on(run, config, distributed, reporter)


def _begin(run: RunFolder, config: RunConfig, reporter: Reporter | None) -> TrainingResult:
    _require_libraries()
    with init_distributed(config.device) as distributed:
        if distributed.restarts and distributed.broadcast(run.holds(config)):
            return _go_on(run, config, distributed, reporter)  # torchrun has started the processes anew
        distributed.on_rank_zero(run.check_new)
        training = Training(run, config, distributed, reporter or Reporter())
        training.read_images()
        distributed.on_rank_zero(lambda: run.create(config))  # not before the images are known to be good
        return _train(training)


def _go_on(
    run: RunFolder, config: RunConfig, distributed: DistributedContext, reporter: Reporter | None
) -> TrainingResult:
    training = Training(run, config, distributed, reporter or Reporter())
    training.read_images()
    return _train(training)


def _train(training: Training) -> TrainingResult:
    training.distributed.on_rank_zero(training.run.hold)
    try:
        return training.run_to_the_end()
    finally:
        training.run.release()


def _require_libraries() -> None:
    for library in ("torchmetrics", "tensorboard"):
        require(library, extra="train")


def _free_folder(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
