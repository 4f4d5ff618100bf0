"""What a training run tells while it goes on: to the caller, whose command line makes progress bars of it, and to
TensorBoard.
"""

from pathlib import Path
from types import TracebackType

from torch import Tensor

from ghostnets.errors import require
from ghostnets.train.run_folder import EpochResult

__all__ = ["Reporter", "TensorBoard"]

IMAGES_SHOWN = 16


class Reporter:
    """Does nothing; override what you want to hear of."""

    def reading(self, total: int) -> None:
        """Images are about to be read from files: so many."""

    def image_read(self) -> None:
        """One image was read."""

    def started(self, description: str, *, folder: Path, epoch: int, epochs: int, steps: int) -> None:
        """Training begins in epoch ``epoch`` (from 0) of ``epochs``, with ``steps`` batches each, and is kept there."""

    def step(self, *, epoch: int, step: int, loss: float, top1: float, images_per_second: float) -> None:
        """Batch ``step`` (from 0) of epoch ``epoch`` is done; loss and top-1 are those of the epoch so far."""

    def epoch(self, result: EpochResult, *, is_best: bool) -> None:
        """An epoch is done, evaluated and saved."""

    def note(self, sentence: str) -> None:
        """Something worth a line."""


class TensorBoard:
    """The events of a run: figures of every epoch, and some training images as the network sees them.

    Args:
        folder: Where to; None to write nothing.
        epoch: From 0; what an earlier session wrote of it and later ones is hidden.
    """

    def __init__(self, folder: Path | None, epoch: int) -> None:
        require("torch.utils.tensorboard", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = None if folder is None else SummaryWriter(str(folder), purge_step=epoch + 1)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def images(self, pixels: Tensor) -> None:
        """uint8 (N, C, H, W); the first of them are kept."""
        if self.writer is not None:
            self.writer.add_images("training images", pixels[:IMAGES_SHOWN], 0)

    def epoch(self, result: EpochResult) -> None:
        """The figures of an epoch."""
        if self.writer is not None:
            for name in ("lr", "train_loss", "train_top1", "val_loss", "val_top1", "images_per_second"):
                self.writer.add_scalar(name, getattr(result, name), result.epoch)
            self.writer.flush()
