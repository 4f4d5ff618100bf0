"""What a run comes to, and how it ends before its end."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ghostnets.data import ImageDataset
from ghostnets.errors import RunError
from ghostnets.train.evaluate import Evaluation
from ghostnets.train.run_folder import EpochResult

__all__ = ["InterruptedRunError", "TrainingResult"]


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
    images: ImageDataset = field(repr=False)

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
