"""A training run: epochs, steps, and the state that allows it to stop at any step."""

import math
import signal
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from ghostnets.checkpoints import Checkpoint, build_network, read_checkpoint
from ghostnets.data import TrainingBatches, derive_seed, summarize_source
from ghostnets.errors import RunError
from ghostnets.train.callback import Callback, RunStart
from ghostnets.train.derived import DerivedFiles
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.duration import check_epochs, describe_changed_epochs, describe_end, is_finished, schedule_position
from ghostnets.train.estimate import TimeEstimate
from ghostnets.train.evaluation import time_validation
from ghostnets.train.frozen import classifier_head
from ghostnets.train.hardware import describe_hardware, resolve_workers
from ghostnets.train.metrics import EpochMeasurements, EpochResult, best_epoch
from ghostnets.train.network import describe_initial_weights
from ghostnets.train.parameters import set_learning_rate
from ghostnets.train.result import InterruptedRunError, TrainingResult
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.saver import RunSaver
from ghostnets.train.schedule import learning_rate
from ghostnets.train.setup import build_setup, check_batch
from ghostnets.train.spec import RunSpec
from ghostnets.train.state import TrainData, check_state, describe_unchecked_data, pack_state, read_progress
from ghostnets.train.step import StepTotals
from ghostnets.train.stop import StopRequest, catch_stop_signals
from ghostnets.train.task_evaluation import evaluate_images

__all__ = ["Run"]

SAVE_SECONDS = 600  # interval between saved states within a long epoch


class Run:
    """A run with everything built, in one process or as one of several; ``run`` trains it.

    Made by ``Run.begin`` or ``Run.resume``. It locks its folder until ``run`` ends.

    Args:
        folder: Folder of the run.
        spec: Specification of the run.
        distributed: The processes.
        callback: Callbacks.
        is_new: Whether to create the folder, or resume the run in it.
        report: Whether to write a live ``report.html`` after epochs.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        distributed: DistributedContext,
        callback: Callback,
        *,
        is_new: bool,
        report: bool,
    ) -> None:
        self.folder, self.config, self.recipe = folder, spec.config, spec.config.recipe
        self.source, self.class_names = spec.source, spec.source.class_names
        self.distributed, self.callback, self.report = distributed, callback, report
        distributed.on_rank_zero((lambda: folder.claim(spec.config)) if is_new else folder.lock)
        try:
            saved = distributed.on_rank_zero(folder.load_state)
            if saved is None:
                callback.on_message(self.config.start or describe_initial_weights(self.recipe))
            else:
                check_epochs(self.recipe, read_progress(saved))
            self.splits = spec.read_images(callback)
            self.data = TrainData.describe(self.splits, self.class_names)
            if saved is not None:
                check_state(saved, self.data, location=self.config.data)
            self._tell(describe_unchecked_data(self.config.identity, saved))
            distributed.on_rank_zero(lambda: folder.save_train_digests(self.splits.train.digests()))
            self.setup = build_setup(spec, self.splits, folder, saved, distributed, on_message=callback.on_message)
            self.progress, self.step = self.setup.progress, self.setup.step
            self.history = [EpochResult(**row) for row in self.progress.history]  # type: ignore[arg-type]
            self.steps_per_epoch = len(self._batches(0))
            self.workers = resolve_workers(self.config.workers, distributed.device)
            if not is_new:
                distributed.on_rank_zero(lambda: folder.update_config(self.config))
            self.saver = RunSaver(folder, self._tell)
            if saved is None:
                distributed.on_rank_zero(lambda: self.saver.save(self._state()))
            elif self.progress.holds_best:  # the process may have died between the state and this file
                distributed.on_rank_zero(lambda: self.saver.save_best(self._best()))
        except BaseException:
            if distributed.is_rank_zero:
                folder.discard() if is_new else folder.unlock()
            raise

    @classmethod
    def begin(
        cls, folder: RunFolder, spec: RunSpec, distributed: DistributedContext, callback: Callback, *, report: bool
    ) -> "Run":
        """Begin a run in a new folder; if that fails, no folder is left.

        Raises:
            RunError: The folder exists and is not empty.
            DataError: Images cannot be read.
            Any error of ``build_setup``.
        """
        return cls(folder, spec, distributed, callback, is_new=True, report=report)

    @classmethod
    def resume(
        cls, folder: RunFolder, spec: RunSpec, distributed: DistributedContext, callback: Callback, *, report: bool
    ) -> "Run":
        """Resume the run in a folder, whose configuration is that of ``spec``.

        Raises:
            RunError: The saved state is damaged or does not fit, a file is missing without which the run cannot be
                resumed, or another process trains the run.
            Any error of ``build_setup``.
        """
        return cls(folder, spec, distributed, callback, is_new=False, report=report)

    def run(self) -> TrainingResult:
        """Train all remaining epochs, and evaluate the best one.

        Raises:
            RunError: The loss became non-finite.
            InterruptedRunError: The process was asked to stop; the state is saved.
        """
        try:
            with catch_stop_signals() as stop:
                self._train_epochs(stop)
            return self._evaluate_best()
        finally:
            self.folder.unlock()

    def _batches(self, epoch: int) -> TrainingBatches:
        recipe, world_size = self.recipe, self.distributed.world_size
        batches = TrainingBatches(
            self.setup.splits.train,
            self.setup.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=epoch,
            class_balanced=recipe.class_balanced,
            rank=self.distributed.rank,
            world_size=world_size,
        )
        check_batch(batches.batch_size, len(self.setup.splits.train), world_size, recipe.accumulate)
        return batches

    def _train_epochs(self, stop: StopRequest) -> None:
        progress, recipe = self.progress, self.recipe
        if is_finished(recipe, progress):
            self.callback.on_message(
                f"the run in {self.folder.path} is finished, {describe_end(recipe, progress)}; its best epoch is"
                " evaluated again, and the files that follow from it are written again. To train it further:"
                f" ghostnets train --resume {self.folder.path} --epochs {2 * recipe.epochs}"
            )
        else:
            self._describe_start()
        if not self.distributed.is_rank_zero:
            while not is_finished(recipe, progress):
                self._train_epoch(stop)
                self._finish_epoch()
            return
        first = next(iter(self._batches(0).stream())).pixels
        images = first if first.ndim == 4 else None  # not of the features of a frozen network
        on_message = self.callback.on_message
        with DerivedFiles(self.folder, self.history, images, report=self.report, on_message=on_message) as derived:
            while not is_finished(recipe, progress):
                self._train_epoch(stop)
                derived.add_epoch(is_saved=self._finish_epoch())
                self.callback.on_epoch_end(self.history[-1], is_best=progress.holds_best)
                if not is_finished(recipe, progress):
                    self._tell(self.estimate.add_epoch())
                elif progress.epoch < recipe.epochs:
                    on_message(f"training ends {describe_end(recipe, progress)}")

    def _describe_start(self) -> None:
        progress, device = self.progress, self.distributed.device
        self._tell(describe_hardware(device, self.step.precision, self.workers))
        self._tell(describe_changed_epochs(self.config, progress.epoch + progress.step / self.steps_per_epoch))
        if not progress.val_seconds:
            network, images = self._evaluated_network(), self.setup.splits.val
            progress.val_seconds = self._of_rank_zero(
                time_validation(network, images, self.step.preprocessing, device) / self.distributed.world_size
            )
        self.estimate = TimeEstimate(self.recipe, progress, self.steps_per_epoch)
        description = f"{self.recipe.model} on {len(self.splits.train)} images of {self.source.name}"
        if self.distributed.world_size > 1:
            description += f", {self.distributed.world_size} processes"
        so_far, steps = (progress.epoch, progress.seconds), self.steps_per_epoch
        run = (self.folder.path, self.config, self.class_names, description, steps, *so_far, self.source.multi_label)
        self.callback.on_run_start(RunStart(*run))

    def _tell(self, sentence: str | None) -> None:
        if sentence is not None:
            self.callback.on_message(sentence)

    def _of_rank_zero(self, seconds: float) -> float:
        """Return a time, as measured by process 0 in all processes if a time limit depends on it."""
        if self.recipe.time_limit is None:
            return seconds
        return self.distributed.sum([seconds if self.distributed.is_rank_zero else 0.0])[0]

    def _train_epoch(self, stop: StopRequest) -> None:
        progress, recipe = self.progress, self.recipe
        batches = self._batches(progress.epoch)
        saved_at = before = time.perf_counter()
        for batch in batches.stream(progress.step, workers=self.workers):
            position = progress.epoch + progress.step / self.steps_per_epoch
            position = schedule_position(recipe, progress, position)
            if progress.step and position >= recipe.epochs:
                break  # the time is up
            set_learning_rate(self.setup.state.optimizer, learning_rate(recipe, position))
            totals = self.step(
                batch,
                batch_size=batches.batch_size,
                seed=derive_seed(recipe.seed, progress.epoch, progress.step, self.distributed.rank),
                stop=stop.signal is not None,
            )
            now = time.perf_counter()
            self._count_step(totals, self._of_rank_zero(now - before))
            before = now
            # All processes stop after the same step: the one that counted a stop request.
            if totals.num_stop_requests or (self.distributed.world_size == 1 and stop.signal is not None):
                self.distributed.on_rank_zero(lambda: self.saver.save_end(self._state()))
                raise InterruptedRunError(self.folder.path, stop.signal or signal.SIGTERM)
            if self.distributed.is_rank_zero and now - saved_at > SAVE_SECONDS:
                self.saver.try_save(self._state())
                saved_at = now

    def _count_step(self, totals: StepTotals, seconds: float) -> None:
        """Add a step to the progress, and report it."""
        progress = self.progress
        if not totals.is_finite:
            raise RunError(
                f"the loss became {totals.loss} in epoch {progress.epoch + 1}, step {progress.step + 1}:"
                f" {self.step.diagnose()}; start again with a smaller --lr (it was {self.recipe.lr:g})."
                f" The state saved before is kept in {self.folder.path}."
            )
        progress.train_seconds += seconds
        progress.seconds += seconds
        progress.step += 1
        progress.num_seen += totals.num_seen
        progress.loss_sum += totals.loss
        progress.correct += totals.correct
        self.callback.on_step_end(
            epoch=progress.epoch,
            step=progress.step - 1,
            loss=progress.loss_sum / progress.num_seen,
            top1=progress.correct / progress.num_seen,
            images_per_second=progress.num_seen / progress.train_seconds,
        )
        self._tell(self.estimate.add_step(seconds))

    def _evaluated_network(self) -> nn.Module:
        """Return the module to evaluate after an epoch: the network, or its classifier if the backbone is frozen."""
        network = self.setup.evaluated
        return classifier_head(network) if self.recipe.frozen else network

    def _finish_epoch(self) -> bool:
        """Evaluate the epoch; save the state, and the network if it is the best so far; return whether all is saved."""
        progress, distributed = self.progress, self.distributed
        before = time.perf_counter()
        distributed.broadcast_model(self.setup.evaluated)
        images, preprocessing = self.setup.splits.val, self.step.preprocessing
        network = self._evaluated_network()
        evaluation = evaluate_images(network, images, preprocessing, self.class_names, distributed=distributed)
        progress.val_seconds = self._of_rank_zero(time.perf_counter() - before)
        progress.seconds += progress.val_seconds
        weights = self.setup.state.network.state_dict()
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken or not math.isfinite(evaluation.loss):
            raise RunError(
                f"after epoch {progress.epoch + 1} {broken[0] if broken else 'the validation loss'} is not finite;"
                f" start again with a smaller --lr (it was {self.recipe.lr:g})."
                f" The state saved before is kept in {self.folder.path}."
            )
        result = EpochResult.measure(EpochMeasurements(self.recipe, progress, evaluation))
        self.history.append(result)
        if best_epoch(self.history) is result:
            progress.best_epoch = progress.epoch
        progress.history.append(asdict(result))
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss_sum, progress.correct, progress.num_seen, progress.train_seconds = 0.0, 0, 0, 0.0
        is_last = is_finished(self.recipe, progress)
        return distributed.on_rank_zero(
            lambda: self.saver.save_epoch(self._state(), self._best() if progress.holds_best else None, is_last=is_last)
        )

    def _best(self) -> Checkpoint:
        """Return the network at the end of the last epoch, to be written as the best one."""
        result, network = self.history[-1], self.setup.evaluated
        return Checkpoint(
            architecture=self.recipe.model,
            arguments=self.config.arguments,
            changes=self.config.changes,
            state_dict=network.state_dict(),
            class_names=self.class_names,
            preprocessing=self.config.preprocessing,
            training={
                "data": self.config.data,
                "full": self.config.full,
                "data_identity": self.config.identity,
                "recipe": self.recipe.to_dict(),
                "epoch": result.epoch,
                result.selection: getattr(result, result.selection),
            },
            multi_label=self.source.multi_label,
        )

    def _state(self) -> dict[str, Any]:
        return pack_state(self.setup.state, self.progress, self.data)

    def _evaluate_best(self) -> TrainingResult:
        """Evaluate the best epoch on the test images, or on the validation images if there are none."""
        split, images = ("val", self.splits.val) if self.splits.test is None else ("test", self.splits.test)
        weights = self.distributed.on_rank_zero(lambda: read_checkpoint(self.folder.best, task=None).state_dict)
        model = build_network(self.recipe.model, self.config.arguments, self.config.changes)
        model.load_state_dict(weights)
        model.to(self.distributed.device).to(memory_format=torch.channels_last)
        training_images = self.distributed.on_rank_zero(lambda: self.folder.find_training_images(images.digests()))
        result = TrainingResult(
            folder=self.folder.path,
            checkpoint=self.folder.best,
            best_epoch=self.progress.best_epoch + 1,
            seconds=self.progress.seconds,
            history=tuple(self.history),
            split=split,
            evaluation=evaluate_images(
                model, images, self.config.preprocessing, self.class_names, distributed=self.distributed
            ),
            skipped=self.splits.skipped,
            num_training_images=None if training_images is None else int(training_images.sum()),
            data=summarize_source(self.source),
            images=images,
        )
        self.distributed.on_rank_zero(lambda: self.folder.write_result(result.to_dict()))
        return result
