"""Files derived from the history of a run: metrics.csv, TensorBoard events, the live report."""

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from torch import Tensor

from ghostnets.errors import RunError, StorageError
from ghostnets.train.metrics import EpochResult
from ghostnets.train.report import write_live_report
from ghostnets.train.reporter import TensorBoardWriter
from ghostnets.train.run_folder import RunFolder

__all__ = ["DerivedFiles"]

REPORT_SECONDS = 20  # shortest interval between live reports
REPORT_COST = 50  # shortest interval in multiples of the time that the last report took: at most 2 % of the training


class DerivedFiles:
    """Context manager that rewrites the files from the history of the saved state, and keeps them up to date.

    A file that cannot be written, as on a full disk, does not end the training: it is reported once, and the files are
    written again after the next epoch, or on exit.

    Args:
        folder: Folder of the run.
        history: Finished epochs of the saved state; extended by the caller.
        images: Images of the first batch for TensorBoard, uint8 (N, C, H, W), or None.
        report: Whether to write a live ``report.html``.
        on_message: Callback for messages to the user.

    Raises:
        StorageError: A file cannot be written on exit.
        RunError: The folder was removed.
    """

    def __init__(
        self,
        folder: RunFolder,
        history: Sequence[EpochResult],
        images: Tensor | None,
        *,
        report: bool,
        on_message: Callable[[str], None],
    ) -> None:
        self.folder, self.history, self.images, self.report = folder, history, images, report
        self.on_message = on_message
        self.next_report = -math.inf
        self.tensorboard: TensorBoardWriter | None = None
        self.is_current = False
        self.has_warned = False

    def __enter__(self) -> "DerivedFiles":
        self._try(self._rewrite)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.is_current:
                self._rewrite()
        finally:
            if self.tensorboard is not None:
                self.tensorboard.close()

    def add_epoch(self, *, is_saved: bool) -> None:
        """Write the last epoch of the history, or if its state could not be saved, later with the next one."""
        if not is_saved:
            self.is_current = False
            return
        self._try(self._add_epoch if self.is_current else self._rewrite)
        if self.report and time.monotonic() >= self.next_report:
            self._write_live_report()

    def _write_live_report(self) -> None:
        before = time.monotonic()
        try:
            self._try(lambda: write_live_report(self.folder))
        except RunError:
            raise  # the folder was removed
        except Exception as error:  # any error of matplotlib or jinja2: a page must not end hours of training
            self._warn(f"the live report could not be written ({type(error).__name__}: {error}).")
        after = time.monotonic()
        self.next_report = after + max(REPORT_SECONDS, REPORT_COST * (after - before))

    def _add_epoch(self) -> None:
        assert self.tensorboard is not None
        self.is_current = False
        self.folder.write_metrics(self.history)
        self.tensorboard.add_epoch(self.history[-1])
        self.is_current = True

    def _rewrite(self) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.history:
            self.folder.write_metrics(self.history)
        self.tensorboard = TensorBoardWriter(self.folder.tensorboard, self.history, self.images)
        self.is_current = True

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except StorageError as error:
            self._warn(
                f"a file that follows from the state could not be written in {self.folder.path} ({error.reason})."
            )

    def _warn(self, sentence: str) -> None:
        if not self.has_warned:
            self.on_message(f"{sentence} The training continues, and the files are written again later.")
        self.has_warned = True
