"""Callbacks of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ghostnets.train.metrics import EpochResult
from ghostnets.train.result import TrainingResult
from ghostnets.train.run_config import RunConfig

__all__ = ["Callback", "CallbackList", "RunStart"]


@dataclass(frozen=True)
class RunStart:
    """Description of a run when its training starts or is resumed.

    Attributes:
        folder: Folder of the run; its name is the name of the run.
        config: Complete configuration, with the resolved recipe in ``config.recipe``.
        class_names: Class names in the order of the logits.
        description: One line on network and data.
        steps: Steps of an epoch.
        epoch: Epoch in which training starts, from 0.
        seconds: Time of training and validation in earlier sessions.
        multi_label: Whether images have any number of classes.
    """

    folder: Path
    config: RunConfig
    class_names: tuple[str, ...]
    description: str
    steps: int
    epoch: int
    seconds: float
    multi_label: bool = False

    @property
    def epochs(self) -> int:
        """Maximum number of epochs."""
        return self.config.recipe.epochs


class Callback:
    """Base class of callbacks; every method does nothing, and subclasses override the methods they need.

    Order of the calls::

        on_read_start, on_image_read ...
        on_run_start
            on_step_end ..., on_epoch_end     for each epoch
        on_run_end, or on_run_error

    ``on_message`` may come at any time. The last call is ``on_run_end`` or ``on_run_error``, also for a run that fails
    before it starts; a run with no epochs left has no ``on_run_start``. In distributed training process 0 alone
    calls callbacks. An exception that a callback raises ends the run: the state of the last epoch is saved before
    ``on_epoch_end``, so the run can be resumed.
    """

    def on_read_start(self, total: int) -> None:
        """``total`` images are about to be read."""

    def on_image_read(self) -> None:
        """One image was read."""

    def on_run_start(self, run: RunStart) -> None:
        """Training starts, or is resumed."""

    def on_step_end(self, *, epoch: int, step: int, loss: float, top1: float, images_per_second: float) -> None:
        """Step ``step`` (from 0) of epoch ``epoch`` is done; loss and accuracy are means over the epoch so far.

        With several labels per image, the accuracy is the share of images all of whose labels are predicted.
        """

    def on_epoch_end(self, result: EpochResult, *, is_best: bool) -> None:
        """An epoch is trained, evaluated and saved."""

    def on_run_end(self, result: TrainingResult) -> None:
        """The run is finished, and all its files are written."""

    def on_run_error(self, error: BaseException) -> None:
        """The run failed, or was interrupted (``InterruptedRunError``); the error is raised afterwards."""

    def on_message(self, sentence: str) -> None:
        """A message for the user."""


class CallbackList(Callback):
    """Calls several callbacks, in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = tuple(callbacks)

    def on_read_start(self, total: int) -> None:
        for callback in self.callbacks:
            callback.on_read_start(total)

    def on_image_read(self) -> None:
        for callback in self.callbacks:
            callback.on_image_read()

    def on_run_start(self, run: RunStart) -> None:
        for callback in self.callbacks:
            callback.on_run_start(run)

    def on_step_end(self, *, epoch: int, step: int, loss: float, top1: float, images_per_second: float) -> None:
        for callback in self.callbacks:
            callback.on_step_end(epoch=epoch, step=step, loss=loss, top1=top1, images_per_second=images_per_second)

    def on_epoch_end(self, result: EpochResult, *, is_best: bool) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(result, is_best=is_best)

    def on_run_end(self, result: TrainingResult) -> None:
        for callback in self.callbacks:
            callback.on_run_end(result)

    def on_run_error(self, error: BaseException) -> None:
        for callback in self.callbacks:
            callback.on_run_error(error)

    def on_message(self, sentence: str) -> None:
        for callback in self.callbacks:
            callback.on_message(sentence)
