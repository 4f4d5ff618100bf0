"""The outcome of a run: its result, or its interruption."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ghostnets.data import ImageDataset
from ghostnets.errors import RunError
from ghostnets.train.detection import BoxEvaluation
from ghostnets.train.evaluation import Evaluation
from ghostnets.train.metrics import EpochResult
from ghostnets.train.multi_label import MultiLabelEvaluation
from ghostnets.train.segmentation import MaskEvaluation

__all__ = ["InterruptedRunError", "TrainingResult"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        folder: ``runs/NAME``.
        checkpoint: ``runs/NAME/best.safetensors``.
        best_epoch: Epoch with the highest validation accuracy, mean average precision of multi-label data and boxes, or
            mean intersection over union of masks, from 1; of equals that with the lowest validation
            loss, or the first.
        seconds: Time of training and evaluation of all epochs.
        history: One entry per epoch.
        split: Images of ``evaluation``: ``"test"``, or ``"val"`` if there is no test split. The best epoch was chosen
            on ``"val"``, so a figure measured there is a little optimistic.
        evaluation: Evaluation of the best epoch.
        skipped: One sentence for each image left out.
        num_training_images: Number of images of ``split`` that are also training images, by content; None if unknown.
        data: Images of each class by split, and assumptions and exclusions (``summarize_source``).
        images: The images of ``split``.
    """

    folder: Path
    checkpoint: Path
    best_epoch: int
    seconds: float
    history: tuple[EpochResult, ...]
    split: str
    evaluation: Evaluation | MultiLabelEvaluation | BoxEvaluation | MaskEvaluation
    skipped: tuple[str, ...]
    num_training_images: int | None
    data: dict[str, Any]
    images: ImageDataset = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the images, as JSON values."""
        return {
            "folder": str(self.folder),
            "checkpoint": str(self.checkpoint),
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "part": self.split,
            "evaluation": self.evaluation.to_dict(),
            "skipped": list(self.skipped),
            "training_images": self.num_training_images,
            "data": self.data,
            "history": [asdict(row) for row in self.history],
        }


class InterruptedRunError(RunError):
    """The run was interrupted (Ctrl-C, SIGTERM or SIGHUP) after saving its state.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.signal = number
        super().__init__(f"stopped, nothing is lost; resume with: ghostnets train --resume {folder}")
