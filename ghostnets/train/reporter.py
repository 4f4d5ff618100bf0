"""Reports of a training run in progress: the console and TensorBoard."""

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ghostnets.errors import StorageError, require
from ghostnets.files import relative_path
from ghostnets.terminal import create_console
from ghostnets.train.callback import Callback, RunStart
from ghostnets.train.metrics import EpochResult

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ConsoleReporter", "TensorBoardWriter"]

IMAGES_SHOWN = 16


class ConsoleReporter(Callback):
    """Progress bars in a terminal or notebook, and one line per epoch everywhere.

    Args:
        console: Console to print to; stderr by default.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self.console = console or create_console(stderr=True)
        lacks_widgets = self.console.is_jupyter and importlib.util.find_spec("ipywidgets") is None
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=lacks_widgets,  # bars in a notebook are widgets
        )
        self.task = self.bars.add_task("", total=None, facts="", visible=False)

    def __enter__(self) -> "ConsoleReporter":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def on_read_start(self, total: int) -> None:
        self.bars.reset(self.task, total=total, description="reading images", visible=True)

    def on_image_read(self) -> None:
        self.bars.advance(self.task)

    def on_run_start(self, run: RunStart) -> None:
        resumed = f", resumed in epoch {run.epoch + 1}" if run.epoch else ""
        epochs, steps = run.epochs, run.steps
        length = f"{epochs} epoch{'s' * (epochs != 1)} of {steps} step{'s' * (steps != 1)}"
        self._print(f"{run.description}, {length}{resumed}, in {relative_path(run.folder)}")
        self.epochs, self.steps = epochs, steps
        self.accuracy = "" if run.config.task != "classify" else "exact" if run.multi_label else "top-1"
        # The bar spans the run, so that the time left is that of the run: in steps, or in seconds of the time limit.
        self.limit, self.started = run.config.recipe.time_limit_seconds, time.monotonic() - run.seconds
        total, done = (epochs * steps, run.epoch * steps) if self.limit is None else (self.limit, run.seconds)
        self.bars.reset(self.task, total=total, completed=int(done), description="training", visible=True)

    def on_step_end(self, *, epoch: int, step: int, loss: float, top1: float, images_per_second: float) -> None:
        accuracy = f"{self.accuracy} {top1:.1%}  " if self.accuracy else ""
        self.bars.update(
            self.task,
            completed=epoch * self.steps + step + 1 if self.limit is None else time.monotonic() - self.started,
            description=f"epoch {epoch + 1}/{self.epochs}",
            facts=f"loss {loss:.3f}  {accuracy}{images_per_second:.0f} images/s",
        )

    def on_epoch_end(self, result: EpochResult, *, is_best: bool) -> None:
        values = "  ".join(f"{metric.label} {result.format(name):>6}" for name, metric in result.metrics.items())
        self._print(f"epoch {result.epoch:>3}  {values}{'  best' if is_best else ''}")

    def on_message(self, sentence: str) -> None:
        self._print(sentence)

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


class TensorBoardWriter:
    """TensorBoard events of a run: the metrics of every epoch, and some training images as the network sees them.

    Starts a new file with all that is known, and then removes those of earlier sessions, which may lack events.

    Args:
        folder: Folder of the events.
        history: Finished epochs.
        images: Training images, uint8 (N, C, H, W), of which the first are shown, or None.

    Raises:
        StorageError: The events cannot be written.
    """

    def __init__(self, folder: Path, history: Sequence[EpochResult], images: Tensor | None) -> None:
        require("torch.utils.tensorboard", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        with self._storage_errors():
            earlier = list(folder.glob("events.*"))
            self.writer = SummaryWriter(str(folder))
            if images is not None:
                self.writer.add_images("training images", images[:IMAGES_SHOWN], 0)
            for result in history:
                self._add(result)
            self.writer.flush()
            for file in earlier:
                file.unlink()

    def add_epoch(self, result: EpochResult) -> None:
        """Write the metrics of an epoch; raises StorageError."""
        with self._storage_errors():
            self._add(result)
            self.writer.flush()

    def close(self) -> None:
        """Close the file, to which every event was flushed."""
        with suppress(OSError):  # again the error of the event that could not be written
            self.writer.close()

    def _add(self, result: EpochResult) -> None:
        for name in result.metrics:
            self.writer.add_scalar(name, getattr(result, name), result.epoch)

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"could not write the TensorBoard events in {self.folder} ({error.strerror or error})."
            ) from error
