"""The loop over epochs and steps, and the state that makes it possible to stop anywhere."""

import json
import math
import signal
import time
from dataclasses import asdict

import torch
from torch import nn

from ghostnets.checkpoints import Checkpoint, create_model, read_checkpoint, save_checkpoint
from ghostnets.data import TrainingBatches, derive_seed, open_data
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.files import write_text
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.evaluate import evaluate
from ghostnets.train.frozen import classifier_head
from ghostnets.train.optimizers import set_learning_rate
from ghostnets.train.reporter import Reporter, TensorBoard
from ghostnets.train.result import InterruptedRunError, TrainingResult
from ghostnets.train.run_folder import EpochResult, RunConfig, RunFolder
from ghostnets.train.schedule import learning_rate
from ghostnets.train.setup import build_setup
from ghostnets.train.state import pack
from ghostnets.train.stop import catch_stop_signals

__all__ = ["Training"]

SAVE_SECONDS = 600  # within a long epoch the state is saved this often


class Training:
    """One run, in one process or as one of several."""

    def __init__(self, run: RunFolder, config: RunConfig, distributed: DistributedContext, reporter: Reporter) -> None:
        self.run, self.config, self.recipe, self.distributed = run, config, config.recipe, distributed
        self.reporter = reporter if distributed.is_rank_zero else Reporter()
        self.source = open_data(
            config.data, full=config.full, root=config.root, val_share=self.recipe.val_share, seed=self.recipe.seed
        )
        self.class_names = self.source.class_names
        self.preprocessing = Preprocessing.from_dict(config.preprocessing)

    def read_images(self) -> None:
        self.reporter.reading(self.source.count())
        self.splits = self.source.load(
            self.preprocessing, skip_corrupt=self.config.skip_corrupt, on_image=self.reporter.image_read
        )
        for sentence in self.splits.skipped:
            self.reporter.note(f"left out: {sentence}")

    def run_to_the_end(self) -> TrainingResult:
        self.all = build_setup(
            self.run, self.config, self.splits, self.class_names, self.distributed, note=self.reporter.note
        )
        self.progress, self.step = self.all.progress, self.all.step
        self.batches = len(self._batches(0))
        if self.all.is_new:
            self._save_state()
        with catch_stop_signals() as self.stop:
            self._epochs()
        return self._finish()

    def _batches(self, epoch: int) -> TrainingBatches:
        recipe, distributed = self.recipe, self.distributed
        batches = TrainingBatches(
            self.all.splits.train,
            self.all.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=epoch,
            balanced=recipe.class_balanced,
            part=distributed.rank,
            parts=distributed.size,
        )
        if batches.size < 2 * distributed.size * recipe.accumulate:
            raise ConfigurationError(
                f"a batch of {batches.size} images does not give 2 to each of {distributed.size} processes in"
                f" {recipe.accumulate} parts; choose a larger --batch-size."
            )
        return batches

    def _epochs(self) -> None:
        progress, recipe = self.progress, self.recipe
        description = f"{recipe.model} on {len(self.splits.train)} images of {self.source.name}"
        if self.distributed.size > 1:
            description += f", {self.distributed.size} processes"
        self.reporter.started(
            description, folder=self.run.path, epoch=progress.epoch, epochs=recipe.epochs, steps=self.batches
        )
        if progress.epoch == recipe.epochs:
            return
        with TensorBoard(self.run.tensorboard if self.distributed.is_rank_zero else None, progress.epoch) as board:
            while progress.epoch < recipe.epochs:
                self._train_epoch(board)
                result, is_best = self._close_epoch()
                board.epoch(result)
                self.reporter.epoch(result, is_best=is_best)

    def _train_epoch(self, board: TensorBoard) -> None:
        progress, recipe = self.progress, self.recipe
        batches = self._batches(progress.epoch)
        saved_at = before = time.perf_counter()
        for batch in batches.stream(progress.step, workers=self.config.workers):
            if progress.epoch == progress.step == 0 and batch.pixels.ndim == 4:
                board.images(batch.pixels)
            set_learning_rate(
                self.all.learned.optimizer, learning_rate(recipe, progress.epoch + progress.step / self.batches)
            )
            sums = self.step(
                batch,
                batch_size=batches.size,
                seed=derive_seed(recipe.seed, progress.epoch, progress.step, self.distributed.rank),
                stop=self.stop.number is not None,
            )
            if not sums.is_finite:
                raise RunError(
                    f"the loss became {sums.loss} in epoch {progress.epoch + 1}, step {progress.step + 1}:"
                    f" {self.step.explain()}; start again with a smaller --lr (it was {recipe.lr:g})."
                    f" What was saved before is kept in {self.run.path}."
                )
            now = time.perf_counter()
            progress.train_seconds += now - before
            progress.seconds += now - before
            before = now
            progress.step += 1
            progress.seen += sums.seen
            progress.loss_sum += sums.loss
            progress.right += sums.right
            self.reporter.step(
                epoch=progress.epoch,
                step=progress.step - 1,
                loss=progress.loss_sum / progress.seen,
                top1=progress.right / progress.seen,
                images_per_second=progress.seen / progress.train_seconds,
            )
            # Several processes stop after the same step: the one in which they told each other.
            if sums.stop or (self.distributed.size == 1 and self.stop.number is not None):
                self._save_state()
                raise InterruptedRunError(self.run.path, self.stop.number or signal.SIGTERM)
            if now - saved_at > SAVE_SECONDS:
                self._save_state()
                saved_at = now

    def _close_epoch(self) -> tuple[EpochResult, bool]:
        """Evaluates, keeps the network if it is the best so far, and saves the state."""
        progress, distributed = self.progress, self.distributed
        before = time.perf_counter()
        network = self.all.result
        distributed.broadcast_model(network)
        asked = classifier_head(network) if self.recipe.frozen else network
        evaluation = evaluate(
            asked, self.all.splits.val, self.step.preprocessing, self.class_names, distributed=distributed
        )
        progress.seconds += time.perf_counter() - before
        broken = [name for name, tensor in self.all.learned.network.state_dict().items() if not tensor.isfinite().all()]
        if broken or not math.isfinite(evaluation.loss):
            raise RunError(
                f"after epoch {progress.epoch + 1} {broken[0] if broken else 'the validation loss'} is not finite;"
                f" start again with a smaller --lr (it was {self.recipe.lr:g})."
                f" What was saved before is kept in {self.run.path}."
            )
        result = EpochResult(
            epoch=progress.epoch + 1,
            lr=learning_rate(self.recipe, progress.epoch + 1),
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
            distributed.on_rank_zero(lambda: save_checkpoint(self.run.best, self._checkpoint(result, network)))
        progress.history.append(asdict(result))
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.right, progress.seen, progress.train_seconds = 0.0, 0, 0, 0.0
        self._save_state()
        rows = [EpochResult(**row) for row in progress.history]  # type: ignore[arg-type]
        distributed.on_rank_zero(lambda: self.run.write_metrics(rows))
        return result, is_best

    def _checkpoint(self, result: EpochResult, network: nn.Module) -> Checkpoint:
        return Checkpoint(
            architecture=self.recipe.model,
            arguments=self.config.arguments,
            state_dict=network.state_dict(),
            class_names=self.class_names,
            preprocessing=self.preprocessing,
            training={
                "data": self.config.data,
                "full": self.config.full,
                "recipe": self.recipe.to_dict(),
                "epoch": result.epoch,
                "val_top1": result.val_top1,
            },
        )

    def _save_state(self) -> None:
        if self.distributed.is_rank_zero:
            images = len(self.splits.train)
            self.run.save_state(pack(self.all.learned, self.progress, images=images, class_names=self.class_names))

    def _finish(self) -> TrainingResult:
        part, images = ("val", self.splits.val) if self.splits.test is None else ("test", self.splits.test)
        state = self.distributed.on_rank_zero(lambda: read_checkpoint(self.run.best).state_dict)
        model = create_model(self.recipe.model, **self.config.arguments)
        model.load_state_dict(state)
        model.to(self.distributed.device).to(memory_format=torch.channels_last)
        result = TrainingResult(
            folder=self.run.path,
            checkpoint=self.run.best,
            best_epoch=self.progress.best_epoch + 1,
            seconds=self.progress.seconds,
            history=tuple(EpochResult(**row) for row in self.progress.history),  # type: ignore[arg-type]
            part=part,
            evaluation=evaluate(model, images, self.preprocessing, self.class_names, distributed=self.distributed),
            skipped=self.splits.skipped,
            images=images,
        )
        self.distributed.on_rank_zero(
            lambda: write_text(self.run.result, json.dumps(result.to_dict(), indent=2) + "\n")
        )
        return result
