"""Start, resume or repeat a training run."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ghostnets.data import EMBEDDED, DataSource, DataSpec, check_val_share
from ghostnets.errors import ConfigurationError, require
from ghostnets.models.detection import DETECTORS
from ghostnets.models.names import DETECTOR_NAMES, SEGMENTER_NAMES, resolve_name
from ghostnets.models.segmentation import SEGMENTERS
from ghostnets.train.backbone_tasks import choose_backbone_weights
from ghostnets.train.callback import Callback, CallbackList
from ghostnets.train.detection.network import check_detection
from ghostnets.train.distributed import init_distributed
from ghostnets.train.effects import check_effects
from ghostnets.train.find_lr import LearningRateTest, run_learning_rate_test
from ghostnets.train.initial_weights import choose_weights
from ghostnets.train.recipe import Recipe
from ghostnets.train.recipes import RECIPES, default_recipe, fit_epochs, fit_image_size
from ghostnets.train.report import write_run_report
from ghostnets.train.reporter import ConsoleReporter
from ghostnets.train.result import TrainingResult
from ghostnets.train.run import Run
from ghostnets.train.run_config import RunConfig
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.segmentation.network import check_segmentation
from ghostnets.train.spec import RunSpec

__all__ = ["find_learning_rate", "repeat_training", "resume_training", "train_model"]

RUNS = "runs"  # folder of the runs


class LabelTask(NamedTuple):
    """A task of labels in an image: how its recipes are checked, and how their initial weights are chosen."""

    check: Callable[[Recipe], None]
    backbones: dict[str, str]  # backbone of each network
    new: str  # see ``choose_backbone_weights``


LABEL_TASKS = {
    "detect": LabelTask(
        check_detection,
        {name: variant.backbone for name, variant in DETECTORS.items()},
        new="neck and head are",
    ),
    "segment": LabelTask(
        check_segmentation,
        {name: variant.backbone for name, variant in SEGMENTERS.items()},
        new="the head is",
    ),
}


def train_model(
    data: str | os.PathLike[str] | DataSpec = EMBEDDED,
    *,
    folder: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] = RUNS,
    task: str | None = None,
    recipe: Recipe | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    report: bool = True,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> TrainingResult:
    """Train a network on a folder of images, or on the embedded Fashion-MNIST subset.

    Example::

        result = train_model("photos/", model="ghostnet_050", epochs=10)
        print(result.evaluation.top1, result.checkpoint)

    Under torchrun, all processes train one network; ``folder`` is then required, so that they agree on the run.

    Args:
        data: Path of a folder (see ``data.ImageFolder`` for the layouts), path or URL of shards, ``"fashion-mnist"``,
            or a ``DataSpec`` for options such as ``skip_corrupt``.
        folder: New folder of the run; by default ``runs_dir/DATA-MODEL``, numbered if that exists.
        runs_dir: Folder of the runs, for the default of ``folder``.
        task: ``"classify"``, ``"detect"`` for images with labelled boxes (docs/detection.md), or ``"segment"`` for
            images with masks (docs/segmentation.md); None to infer it from the layout, with a message. Ignored for a
            ``DataSpec``, which has its own.
        recipe: Recipe; by default the one for the task and the size of the images.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, ``"xpu"``, or ``"auto"`` for an accelerator if there is one.
        workers: Processes that read images, for each process that trains; 0 to read between steps; by default up to 8
            on an accelerator and 0 on a CPU.
        progress: Progress bars and one line per epoch in a terminal or notebook; False for none.
        report: Write ``report.html``, during training and at its end.
        callbacks: Callbacks, called in this order.
        **changes: Fields of the recipe to change, such as ``epochs`` (see ``Recipe``).

    Returns:
        The result, which is also written to the folder (see ``RunFolder``).

    Raises:
        DataError: The images cannot be used.
        CheckpointError: The initial weights or those of the teacher cannot be used.
        ConfigurationError: The recipe cannot be used with the data or the weights.
        UnknownNameError: The network or a field of the recipe is unknown.
        MissingExtraError: A library of the extra ``train`` is not installed.
        RunError: The folder of the run exists, or the loss became non-finite.
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; the state is saved.
        StorageError: A file cannot be written.
    """
    spec = data if isinstance(data, DataSpec) else DataSpec(data, task=task)
    run_spec = _resolve(spec, recipe, changes, device=device, workers=workers)
    if folder is None:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ConfigurationError(
                "distributed training needs a name, so that all processes agree on the run; pass --name NAME."
            )
        folder = _unused_folder(Path(runs_dir), run_spec.name)
    return _train(RunFolder(folder), run_spec, is_new=True, progress=progress, report=report, callbacks=callbacks)


def find_learning_rate(
    data: str | os.PathLike[str] | DataSpec = EMBEDDED,
    *,
    recipe: Recipe | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    **changes: Any,
) -> LearningRateTest:
    """Suggest a learning rate by a range test of up to 100 steps; trains no network and writes no file.

    Args:
        data: Images, in any form that ``train_model`` accepts.
        recipe: Recipe; by default the one for the size of the images.
        device: Device, as in ``train_model``.
        workers: Processes that read images, as in ``train_model``.
        progress: Progress bar for reading the images, and messages; False for none.
        **changes: Fields of the recipe to change (see ``Recipe``).

    Raises:
        ConfigurationError: There are several processes, or the network is a detector.
        RunError: The loss is not finite even at the lowest rates.
        Any error of ``train_model``.
    """
    spec = _resolve(data, recipe, changes, device=device, workers=workers)
    if spec.config.task == "detect":
        raise ConfigurationError(
            "the loss of a detector varies with the objects of a batch and its own boxes, so a range test finds no"
            f" learning rate; omit --find-lr (the recipe has {spec.config.recipe.lr:g}), or compare short runs."
        )
    with ConsoleReporter() if progress else nullcontext(Callback()) as callback:
        return run_learning_rate_test(spec, callback)


def _resolve(
    data: str | os.PathLike[str] | DataSpec,
    recipe: Recipe | None,
    changes: dict[str, Any],
    *,
    device: str,
    workers: int | None,
) -> RunSpec:
    """Return the specification of a new run; without a recipe, the one for the images is used."""
    requested = (recipe or RECIPES["transfer"]).changed(**changes)
    spec = data if isinstance(data, DataSpec) else DataSpec(data)
    source = spec.open(val_share=requested.val_share, seed=requested.seed)
    if "val_share" in changes and changes["val_share"] != (recipe or Recipe()).val_share:
        check_val_share(source, requested.val_share)
    if source.task != "classify":
        requested = (recipe or RECIPES[source.task]).changed(**changes)
        label_task = LABEL_TASKS[source.task]
        label_task.check(requested)
        backbone = requested.backbone or label_task.backbones[requested.model]
        chosen, start = choose_backbone_weights(requested, backbone, new=label_task.new)
        return RunSpec.resolve(spec, source, chosen, device=device, workers=workers, start=start)
    if requested.model in DETECTOR_NAMES | SEGMENTER_NAMES:
        kind, data_of = (
            ("detector", "labelled boxes and --task detect")
            if requested.model in DETECTOR_NAMES
            else ("segmentation network", "masks and --task segment")
        )
        raise ConfigurationError(
            f"{requested.model} is a {kind}, and {spec.data} has classes of images; choose another --model, or data"
            f" with {data_of}."
        )
    if requested.backbone is not None:
        raise ConfigurationError(
            f"backbone is {requested.backbone}, and {spec.data} has classes of images, for which the whole network is"
            f" trained; pass --model {requested.backbone} instead."
        )
    length, base = "", recipe or requested
    if recipe is None:
        if source.multi_label:
            changes = {"label_smoothing": 0.0, **changes}  # it would raise the probabilities of rare labels
        name = default_recipe(source.typical_size, changes)
        base = RECIPES[name]
        requested = base.changed(**changes)
        if name == "transfer":
            requested, length = _fit_length(requested, changes, source)
    check_effects(requested, base)
    may_be_random = recipe is None and "weights" not in changes and not requested.frozen
    scratch = RECIPES["photos"].changed(**changes) if may_be_random else None
    chosen, start = choose_weights(requested, scratch=scratch)
    requested, start = chosen, start + (length if chosen != scratch else "")
    resolved = RunSpec.resolve(spec, source, requested, device=device, workers=workers, start=start)
    if "model" in changes and (model := resolved.config.recipe.model) != resolve_name(requested.model):
        raise ConfigurationError(
            f"model is {requested.model}, and {requested.weights} has {model}, which training from it keeps; omit"
            " --model, or start from other --weights."
        )
    return resolved


def _fit_length(recipe: Recipe, changes: dict[str, Any], source: DataSource) -> tuple[Recipe, str]:
    """Return the recipe with epochs and size that suit the images, unless requested, and a message on them."""
    num_images = source.split_sizes["train"]
    fitted = {"epochs": fit_epochs(num_images), "image_size": fit_image_size(num_images, source.typical_size)}
    fitted = {name: value for name, value in fitted.items() if name not in changes}
    if not fitted:
        return recipe, ""
    recipe = recipe.changed(**fitted)
    options = ", ".join(f"--{name.replace('_', '-')}" for name in fitted)
    length = f"{recipe.epochs} epochs at {recipe.image_size}" if "epochs" in fitted else f"{recipe.image_size}"
    return recipe, f"; {length} pixels, for {num_images:,} training images (others: {options})"


def repeat_training(
    folder: str | os.PathLike[str],
    *,
    into: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] = RUNS,
    data: str | os.PathLike[str] | None = None,
    progress: bool = True,
    report: bool = True,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Repeat a run from its start in a new folder; on the same machine, a CPU gives the same weights.

    If the number of epochs was changed when the run was resumed, all epochs are trained by the last schedule, so the
    weights differ.

    Args:
        folder: Folder of the run to repeat; only its ``config.json`` is needed.
        into: New folder; by default the old name in ``runs_dir``, numbered.
        runs_dir: Folder of the runs, for the default of ``into``.
        data: New location of the images; None if they have not moved.
        progress: Progress bars and one line per epoch in a terminal or notebook; False for none.
        report: Write ``report.html``, during training and at its end.
        callbacks: Callbacks, called in this order.

    Raises:
        RunError: ``folder`` holds no run, or the images differ from the run's.
        Any error of ``train_model``.
    """
    config = replace(_moved(RunFolder(folder).read_config(), data), earlier_epochs=())
    target = RunFolder(into or _unused_folder(Path(runs_dir), Path(folder).resolve().name))
    return _train(
        target, _spec_with_threads(config), is_new=True, progress=progress, report=report, callbacks=callbacks
    )


def resume_training(
    folder: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    progress: bool = True,
    report: bool = True,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Resume an interrupted run; on a CPU the final weights are bit-identical to those of an uninterrupted one.

    Everything comes from the folder of the run, including the number of torch's threads, which is set for the process.
    The number of processes may differ from before.

    Args:
        folder: Folder of the run.
        data: New location of the images; None if they have not moved. The run's configuration then names it.
        epochs: New number of epochs, of a finished run too; None for that of the recipe. Warm-up and decay of the
            learning rate are shares of the run, so from here on they follow the new number.
        progress: Progress bars and one line per epoch in a terminal or notebook; False for none.
        report: Write ``report.html``, during training and at its end.
        callbacks: Callbacks, called in this order.

    Raises:
        RunError: The folder holds no run, its state is damaged, the images differ from the run's, or more than
            ``epochs`` epochs have already been trained.
        Any error of ``train_model``.
    """
    run = RunFolder(folder)
    config = _moved(run.read_config(), data)
    if epochs not in (None, config.recipe.epochs):
        earlier = (*config.earlier_epochs, config.recipe.epochs)
        config = replace(config, recipe=config.recipe.changed(epochs=epochs), earlier_epochs=earlier)
    return _train(run, _spec_with_threads(config), is_new=False, progress=progress, report=report, callbacks=callbacks)


def _moved(config: RunConfig, data: str | os.PathLike[str] | None) -> RunConfig:
    return config if data is None else replace(config, data=DataSpec(data).location)


def _spec_with_threads(config: RunConfig) -> RunSpec:
    torch.set_num_threads(config.threads)
    return RunSpec.from_config(config)


def _train(
    folder: RunFolder, spec: RunSpec, *, is_new: bool, progress: bool, report: bool, callbacks: Sequence[Callback]
) -> TrainingResult:
    for library in ("tensorboard", "torchvision", *(("matplotlib", "jinja2") if report else ())):
        require(library, extra="train")  # now, not after hours of training
    with ExitStack() as stack:
        distributed = stack.enter_context(init_distributed(spec.config.device))
        console = [stack.enter_context(ConsoleReporter())] if progress and distributed.is_rank_zero else []
        called = CallbackList([*console, *callbacks] if distributed.is_rank_zero else [])
        if distributed.restarts and distributed.broadcast(folder.has_config(spec.config)):
            is_new = False  # torchrun has restarted the processes
        create = Run.begin if is_new else Run.resume
        try:
            result = create(folder, spec, distributed, called, report=report).run()
            if report and distributed.is_rank_zero:
                write_run_report(folder, result)
        except BaseException as error:
            called.on_run_error(error)
            raise
        called.on_run_end(result)
    return result


def _unused_folder(runs_dir: Path, name: str) -> Path:
    number = 1
    while (folder := runs_dir / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
