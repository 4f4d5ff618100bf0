"""The state of a run, saved to ``last.pt`` for resuming.

It holds no random state and no schedule: order, augmentation, dropout and the learning rate of a step are functions of
the step's number (and of the process's, in distributed training).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ghostnets.data import DatasetSplits
from ghostnets.errors import RunError
from ghostnets.train.distill import FeatureStudent

__all__ = [
    "TrainData",
    "TrainProgress",
    "TrainState",
    "changed_data",
    "check_state",
    "describe_unchecked_data",
    "pack_state",
    "read_progress",
    "restore_state",
]

STATE_VERSION = 3


@dataclass
class TrainProgress:
    """The progress of a run.

    Attributes:
        epoch: Epoch in training, from 0.
        step: Finished steps of this epoch.
        loss_sum, correct, num_seen: Sum of the losses, correct predictions and images of this epoch so far.
        train_seconds: Training time of this epoch so far, without evaluation.
        seconds: Time of training and evaluation of the run so far.
        val_seconds: Time of the last validation, or of the one to come as estimated before the first; part of
            ``seconds`` once it is done.
        best_epoch: Best epoch so far, from 0; -1 before the first.
        history: Finished epochs, as dictionaries of ``EpochResult``.

    The saved progress is authoritative: ``metrics.csv``, the TensorBoard events and the report follow from it, and
    ``best.safetensors`` from the state of the epoch that it names as the best.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    num_seen: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0
    val_seconds: float = 0.0
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def holds_best(self) -> bool:
        """Whether the network of this progress is that of the best epoch, whose end it is."""
        return self.step == 0 and self.best_epoch == self.epoch - 1 >= 0


@dataclass(frozen=True)
class TrainState:
    """Everything that training updates.

    Attributes:
        network: The network.
        trained: The module that is trained: the network, a part of it, or a wrapper around it.
        optimizer: Optimizer of the weights of ``trained``.
        scaler: Loss scaler for fp16.
        average: Moving average of the network, or None.
    """

    network: nn.Module
    trained: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None


@dataclass(frozen=True)
class TrainData:
    """The data of a run as its state records them, to be checked on resume.

    Attributes:
        num_images: Number of training images.
        class_names: Class names, in the order of the labels.
        identity: Digest of labels and contents (``DatasetSplits.identity``).
    """

    num_images: int
    class_names: tuple[str, ...]
    identity: str

    @classmethod
    def describe(cls, splits: DatasetSplits, class_names: tuple[str, ...]) -> "TrainData":
        return cls(len(splits.train), class_names, splits.identity)


def pack_state(state: TrainState, progress: TrainProgress, data: TrainData) -> dict[str, Any]:
    """Pack the state into plain containers and tensors."""
    trained, average = state.trained, state.average
    return {
        "version": STATE_VERSION,
        "images": data.num_images,
        "class_names": list(data.class_names),
        "data_identity": data.identity,
        "progress": asdict(progress),
        "model": state.network.state_dict(),
        "projection": trained.projection.state_dict() if isinstance(trained, FeatureStudent) else None,
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": None if average is None else average.state_dict(),
    }


def check_state(saved: dict[str, Any], data: TrainData, *, location: str) -> None:
    """Check that a saved state is of this version and of these images and classes.

    Args:
        saved: The saved state.
        data: The current data.
        location: Where they are, for messages.

    Raises:
        RunError: It is not; the message says what has changed.
    """
    _check_version(saved)
    if saved.get("images") != data.num_images:
        raise RunError(
            f"the run was trained on {saved.get('images')} images, but {location} now has {data.num_images};"
            " restore the images, or start a new run."
        )
    if saved.get("class_names") != list(data.class_names):
        raise RunError(f"the classes in {location} have changed; restore them, or start a new run.")
    if saved.get("data_identity", data.identity) != data.identity:
        raise RunError(changed_data(location))


def describe_unchecked_data(config_identity: str | None, saved: dict[str, Any] | None) -> str | None:
    """Return a sentence on what cannot be compared with the data of a run, as an earlier version did not record it.

    Args:
        config_identity: Digest in the run's configuration.
        saved: Saved state; None if the run starts again.
    """
    if config_identity is not None or (saved is not None and "data_identity" in saved):
        return None
    compared = "nothing of the images is" if saved is None else "only the number of images and the classes are"
    return f"the run was started by an earlier version, which recorded no digest of its images: {compared} compared"


def changed_data(location: str) -> str:
    """Return a sentence on how data differ from those of the run."""
    return (
        f"the images in {location} are not those that the run was trained on: some are missing, new or changed, or have"
        " another name or class; restore them, give the folder that has them (--data FOLDER), or start a new run."
    )


def restore_state(saved: dict[str, Any], state: TrainState) -> TrainProgress:
    """Load a saved state into the modules, the optimizer and the scaler.

    Raises:
        RunError: The saved state does not fit.
    """
    try:
        state.network.load_state_dict(saved["model"])
        if isinstance(state.trained, FeatureStudent):
            state.trained.projection.load_state_dict(saved["projection"])
        state.optimizer.load_state_dict(saved["optimizer"])
        if (scaler := saved["scaler"]) and state.scaler.is_enabled():  # the run may move to another kind of device
            state.scaler.load_state_dict(scaler)
        if state.average is not None:
            state.average.load_state_dict(saved["average"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RunError(
            f"the saved state does not fit the run ({str(error).splitlines()[0]}); it is damaged or of another run."
        ) from error
    return read_progress(saved)


def read_progress(saved: dict[str, Any]) -> TrainProgress:
    """Return the progress of a saved state.

    Raises:
        RunError: It is of another version, or damaged.
    """
    _check_version(saved)
    try:
        return TrainProgress(**saved["progress"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the saved state has no valid progress ({error}); it is damaged or of another run.") from error


def _check_version(saved: dict[str, Any]) -> None:
    version = saved.get("version") if isinstance(saved, dict) else None
    if version != STATE_VERSION:
        raise RunError(
            f"the saved state has version {version}, this ghostnets reads version {STATE_VERSION};"
            " install the version that wrote it, or start a new run."
        )
