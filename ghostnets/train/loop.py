"""Training: from images to ``runs/NAME/best.safetensors``, and on from wherever a run was stopped."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.data import (
    ArrayImages,
    CropAndFlip,
    Images,
    ImageSplits,
    Preprocessing,
    ShiftAndFlip,
    open_data,
    training_batches,
)
from ghostnets.errors import RunError, require
from ghostnets.files import write_text
from ghostnets.layers import fused_training
from ghostnets.models import create_model, model_arguments
from ghostnets.train.evaluate import Evaluation, evaluate
from ghostnets.train.recipe import RECIPES, SMALL_IMAGE, Recipe, recipe_for
from ghostnets.train.reporter import Reporter
from ghostnets.train.run_folder import EpochResult, RunConfig, RunFolder
from ghostnets.train.stop import stop_requests

__all__ = ["InterruptedRunError", "TrainingResult", "resume_training", "train_model"]

SAVE_SECONDS = 600  # within a long epoch the state is saved this often
STATE_VERSION = 1


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        folder: ``runs/NAME``.
        checkpoint: ``runs/NAME/best.safetensors``.
        best_epoch: From 1; the one with the highest validation accuracy, the first of equals.
        seconds: Training and evaluation of all epochs.
        history: One entry an epoch.
        part: What ``evaluation`` was measured on: ``"test"``, or ``"val"`` where there is no test part. The best epoch
            was chosen on ``"val"``, so a figure measured there is a little optimistic.
        evaluation: Of the best epoch.
        skipped: One sentence for each image left out.
        images: The images of ``part``.
    """

    folder: Path
    checkpoint: Path
    best_epoch: int
    seconds: float
    history: tuple[EpochResult, ...]
    part: str
    evaluation: Evaluation
    skipped: tuple[str, ...]
    images: Images = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, ready for JSON."""
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.checkpoint),
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "part": self.part,
            "evaluation": self.evaluation.to_dict(),
            "skipped": list(self.skipped),
            "history": [asdict(row) for row in self.history],
        }


class InterruptedRunError(RunError):
    """The run was asked to stop (Ctrl-C or SIGTERM) and saved its state.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.signal = number
        super().__init__(f"stopped, nothing is lost; go on with: ghostnets train --resume {folder}")


def train_model(
    data: str | os.PathLike[str] = "fashion-mnist",
    *,
    folder: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    full: bool = False,
    root: str | os.PathLike[str] | None = None,
    skip_corrupt: bool = False,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Trains a network on a folder of images, or on the embedded Fashion-MNIST subset.

    Args:
        data: Path of a folder (``data.ImageFolder`` tells the layouts), or ``"fashion-mnist"``.
        folder: Where the run is kept; ``runs/DATA-MODEL``, numbered if that exists, by default.
        recipe: How to train; by default the one for the size of the images.
        full: Of Fashion-MNIST: all 70,000 images.
        root: With ``full``: the folder of their files.
        skip_corrupt: Go on without images that cannot be read.
        reporter: Hears of the progress.

    Returns:
        The result, which also stands in ``folder`` (see ``RunFolder``).

    Raises:
        DataError: The images cannot be used.
        ConfigurationError: The recipe cannot be used with them.
        RunError: The run folder exists, or the loss is not a number any more.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
        StorageError: A file could not be written.
    """
    source = open_data(data, full=full, root=root)
    recipe = recipe or RECIPES[recipe_for(source.typical_size)]
    image_size = recipe.image_size or (source.typical_size if source.typical_size <= SMALL_IMAGE else 224)
    recipe = recipe.changed(image_size=image_size, in_chans=recipe.in_chans or source.channels)
    run = RunFolder(folder or _free_folder(f"{source.name}-{recipe.model}"))
    config = RunConfig(
        data=str(data) if not Path(data).is_dir() else str(Path(data).resolve()),
        recipe=recipe,
        full=full,
        root=None if root is None else str(Path(root).resolve()),
        skip_corrupt=skip_corrupt,
        threads=torch.get_num_threads(),
    )
    require("torchmetrics", extra="train")
    require("tensorboard", extra="train")
    with torch.device("meta"):  # a name or argument that does not exist shows before a folder is made
        create_model(recipe.model, **_model_arguments(recipe, len(source.class_names)))
    run.refuse_existing()
    training = _Training(run, config, reporter or Reporter())
    training.read_images()
    run.create(config)  # not before the images are known to be good
    return training.run_to_the_end()


def resume_training(folder: str | os.PathLike[str], *, reporter: Reporter | None = None) -> TrainingResult:
    """Goes on with a stopped run as if nothing had happened: the final weights are the same, bit for bit (CPU).

    Everything comes from the run's folder, the number of torch's threads included, which is set for the process.

    Raises:
        RunError: The folder holds no run, or its state is damaged.
        Others as ``train_model``.
    """
    run = RunFolder(folder)
    config = run.read_config()
    torch.set_num_threads(config.threads)
    training = _Training(run, config, reporter or Reporter())
    training.read_images()
    return training.run_to_the_end()


@dataclass
class _Progress:
    """Where a run stands: the numbers beside the tensors in ``last.pt``."""

    epoch: int = 0  # being trained, from 0
    step: int = 0  # batches of it that are done
    loss_sum: float = 0.0  # over these
    right: int = 0
    seen: int = 0
    train_seconds: float = 0.0  # of this epoch, evaluation left out
    seconds: float = 0.0  # of the run
    best_epoch: int = -1
    best_top1: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


class _Training:
    """One run in one process."""

    def __init__(self, run: RunFolder, config: RunConfig, reporter: Reporter) -> None:
        self.run, self.config, self.recipe, self.reporter = run, config, config.recipe, reporter
        recipe = self.recipe
        assert recipe.image_size is not None  # train_model() has resolved both
        assert recipe.in_chans is not None
        self.source = open_data(
            config.data, full=config.full, root=config.root, val_share=recipe.val_share, seed=recipe.seed
        )
        self.class_names = self.source.class_names
        self.preprocessing = Preprocessing.standard(recipe.image_size, recipe.in_chans)
        self.arguments = _model_arguments(recipe, len(self.class_names))

    def read_images(self) -> None:
        self.reporter.reading(self.source.count())
        self.splits = self.source.load(
            self.preprocessing, skip_corrupt=self.config.skip_corrupt, on_image=self.reporter.image_read
        )
        for sentence in self.splits.skipped:
            self.reporter.note(f"left out: {sentence}")

    def run_to_the_end(self) -> TrainingResult:
        self._prepare()
        with stop_requests() as self.stop:
            self._epochs()
        return self._finish(self.splits)

    def _prepare(self) -> None:
        recipe, images = self.recipe, self.splits.train
        self.batches = max(1, len(images) // recipe.batch_size)
        size = self.preprocessing.image_size
        self.augmentation: ShiftAndFlip | CropAndFlip
        if isinstance(images, ArrayImages) and images.common_size == (size, size):
            self.augmentation = ShiftAndFlip(recipe.shift, recipe.flip)
        else:
            self.augmentation = CropAndFlip(size, recipe.min_scale, recipe.flip)

        torch.manual_seed(recipe.seed)
        self.model = create_model(recipe.model, **self.arguments).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.model, recipe.weight_decay), lr=recipe.lr, momentum=0.9, nesterov=True
        )
        total_steps = recipe.epochs * self.batches
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _one_cycle(step / total_steps, recipe.warmup)
        )
        self.progress = _Progress()
        if (state := self.run.load_state()) is not None:
            self._restore(state)

    def _epochs(self) -> None:
        require("torch.utils.tensorboard", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        progress, recipe = self.progress, self.recipe
        description = f"{recipe.model} on {len(self.splits.train)} images of {self.source.name}"
        self.reporter.started(description, epoch=progress.epoch, epochs=recipe.epochs, steps=self.batches)
        if progress.epoch == recipe.epochs:
            return
        writer = SummaryWriter(str(self.run.tensorboard), purge_step=progress.epoch + 1)
        try:
            while progress.epoch < recipe.epochs:
                self._train_epoch()
                result, is_best = self._close_epoch()
                for name in ("lr", "train_loss", "train_top1", "val_loss", "val_top1", "images_per_second"):
                    writer.add_scalar(name, getattr(result, name), result.epoch)
                writer.flush()
                self.reporter.epoch(result, is_best=is_best)
        finally:
            writer.close()

    def _train_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        batches = training_batches(
            self.splits.train,
            self.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=progress.epoch,
            start=progress.step,
        )
        self.model.train()
        saved_at = before = time.perf_counter()
        for pixels, labels in batches:
            with fused_training():
                logits = self.model(self.preprocessing.normalize(pixels))
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if not math.isfinite(loss.item()):
                raise RunError(
                    f"the loss became {loss.item()} in epoch {progress.epoch + 1}, step {progress.step + 1};"
                    f" start again with a smaller --lr (it was {recipe.lr:g}); {self.run.path} is kept as it was."
                )
            self.optimizer.step()
            self.scheduler.step()

            now = time.perf_counter()
            progress.train_seconds, progress.seconds = (
                progress.train_seconds + now - before,
                progress.seconds + now - before,
            )
            before = now
            progress.step += 1
            progress.seen += len(labels)
            progress.loss_sum += loss.item() * len(labels)
            progress.right += int((logits.argmax(1) == labels).sum())
            self.reporter.step(
                epoch=progress.epoch,
                step=progress.step - 1,
                loss=progress.loss_sum / progress.seen,
                images_per_second=progress.seen / progress.train_seconds,
            )
            if self.stop.number is not None:
                self._save_state()
                raise InterruptedRunError(self.run.path, self.stop.number)
            if now - saved_at > SAVE_SECONDS:
                self._save_state()
                saved_at = now

    def _close_epoch(self) -> tuple[EpochResult, bool]:
        """Evaluates, keeps the network if it is the best so far, and saves the state."""
        progress = self.progress
        before = time.perf_counter()
        evaluation = evaluate(self.model, self.splits.val, self.preprocessing, self.class_names)
        progress.seconds += time.perf_counter() - before
        result = EpochResult(
            epoch=progress.epoch + 1,
            lr=float(self.scheduler.get_last_lr()[0]),
            train_loss=progress.loss_sum / progress.seen,
            train_top1=progress.right / progress.seen,
            val_loss=evaluation.loss,
            val_top1=evaluation.top1,
            images_per_second=progress.seen / progress.train_seconds,
            seconds=progress.seconds,
        )
        is_best = evaluation.top1 > progress.best_top1
        if is_best:
            progress.best_top1, progress.best_epoch = evaluation.top1, progress.epoch
            save_checkpoint(self.run.best, self._checkpoint(result))
        progress.history.append(asdict(result))
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.right, progress.seen, progress.train_seconds = 0.0, 0, 0, 0.0
        self._save_state()
        self.run.write_metrics([EpochResult(**row) for row in progress.history])  # type: ignore[arg-type]
        return result, is_best

    def _checkpoint(self, result: EpochResult) -> Checkpoint:
        return Checkpoint(
            architecture=self.recipe.model,
            arguments=self.arguments,
            state_dict=self.model.state_dict(),
            class_names=self.class_names,
            preprocessing=self.preprocessing.to_dict(),
            training={
                "data": self.config.data,
                "full": self.config.full,
                "recipe": asdict(self.recipe),
                "epoch": result.epoch,
                "val_top1": result.val_top1,
            },
        )

    def _save_state(self) -> None:
        self.run.save_state(
            {
                "version": STATE_VERSION,
                "images": len(self.splits.train),
                "progress": asdict(self.progress),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "random": torch.get_rng_state(),  # the only random source of a step is dropout
            }
        )

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            if state["version"] != STATE_VERSION:
                raise RunError(
                    f"{self.run.last} is of version {state['version']}, this ghostnets reads {STATE_VERSION}."
                )
            if state["images"] != len(self.splits.train):
                raise RunError(
                    f"the run was trained on {state['images']} images, but {self.config.data} now has"
                    f" {len(self.splits.train)}; put the images back, or start a new run."
                )
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            torch.set_rng_state(state["random"])
            self.progress = _Progress(**state["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"{self.run.last} does not fit the run ({str(error).splitlines()[0]});"
                " were the classes in the data changed?"
            ) from error

    def _finish(self, splits: ImageSplits) -> TrainingResult:
        part, images = ("val", splits.val) if splits.test is None else ("test", splits.test)
        model = read_checkpoint(self.run.best).build().to(memory_format=torch.channels_last)
        result = TrainingResult(
            folder=self.run.path,
            checkpoint=self.run.best,
            best_epoch=self.progress.best_epoch + 1,
            seconds=self.progress.seconds,
            history=tuple(EpochResult(**row) for row in self.progress.history),  # type: ignore[arg-type]
            part=part,
            evaluation=evaluate(model, images, self.preprocessing, self.class_names),
            skipped=splits.skipped,
            images=images,
        )
        write_text(self.run.result, json.dumps(result.to_dict(), indent=2) + "\n")
        return result


def _model_arguments(recipe: Recipe, num_classes: int) -> dict[str, Any]:
    assert recipe.image_size is not None
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": recipe.in_chans,
        "drop_rate": recipe.drop_rate,
    }
    if recipe.image_size <= SMALL_IMAGE and "small_input" in model_arguments(recipe.model):
        arguments["small_input"] = True
    if recipe.width is not None:
        arguments["width"] = recipe.width
    return arguments


def _one_cycle(done: float, warmup: float) -> float:
    """Share of the peak learning rate after the share ``done`` of the run: up along a line, down along a cosine."""
    if done < warmup:
        return 0.04 + 0.96 * done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for weights of convolutions and linear layers; none for biases and normalisation, which are vectors."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _free_folder(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
