"""What a training run tells while it goes on; the command line turns it into progress bars."""

from ghostnets.train.run_folder import EpochResult

__all__ = ["Reporter"]


class Reporter:
    """Does nothing; override what you want to hear of."""

    def reading(self, total: int) -> None:
        """Images are about to be read from files: so many."""

    def image_read(self) -> None:
        """One image was read."""

    def started(self, description: str, *, epoch: int, epochs: int, steps: int) -> None:
        """Training begins in epoch ``epoch`` (from 0) of ``epochs``, with ``steps`` batches each."""

    def step(self, *, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """Batch ``step`` (from 0) of epoch ``epoch`` is done."""

    def epoch(self, result: EpochResult, *, is_best: bool) -> None:
        """An epoch is done, evaluated and saved."""

    def note(self, sentence: str) -> None:
        """Something worth a line."""
