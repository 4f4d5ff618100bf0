"""What a run saves to go on from: ``last.pt``.

Nothing random and no schedule is in it: order, augmentation, dropout and the learning rate of a step are functions of
its number (and of the process, where there are several).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ghostnets.errors import RunError
from ghostnets.train.distill import FeatureStudent

__all__ = ["Progress", "TrainState", "check", "pack", "unpack"]

STATE_VERSION = 2


@dataclass
class Progress:
    """Where a run stands: the numbers beside the tensors."""

    epoch: int = 0  # being trained, from 0
    step: int = 0  # batches of it that are done
    loss_sum: float = 0.0  # over these
    right: int = 0
    seen: int = 0
    train_seconds: float = 0.0  # of this epoch, evaluation left out
    seconds: float = 0.0  # of the run
    best_epoch: int = -1
    best_top1: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainState:
    """Everything with a state.

    Attributes:
        network: The network.
        trained: What of it, or around it, is trained.
        optimizer: Over the weights of ``trained``.
        scaler: Of the loss, for fp16.
        average: Moving average of the network, or None.
    """

    network: nn.Module
    trained: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None


def pack(learned: TrainState, progress: Progress, *, images: int, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The state as plain containers and tensors.

    Args:
        learned: Everything with a state.
        progress: Where the run stands.
        images: Number of training images, to be checked when the run goes on.
        class_names: Of the data, likewise.
    """
    trained, average = learned.trained, learned.average
    return {
        "version": STATE_VERSION,
        "images": images,
        "class_names": list(class_names),
        "progress": asdict(progress),
        "model": learned.network.state_dict(),
        "projection": trained.projection.state_dict() if isinstance(trained, FeatureStudent) else None,
        "optimizer": learned.optimizer.state_dict(),
        "scaler": learned.scaler.state_dict(),
        "average": None if average is None else average.state_dict(),
    }


def check(state: dict[str, Any], *, images: int, class_names: tuple[str, ...], data: str) -> None:
    """Raises RunError where the state is of another version, or of other images or classes."""
    if state.get("version") != STATE_VERSION:
        raise RunError(
            f"the saved state is of version {state.get('version')}, this ghostnets reads {STATE_VERSION};"
            " install the version that wrote it, or start a new run."
        )
    if state.get("images") != images:
        raise RunError(
            f"the run was trained on {state.get('images')} images, but {data} now has {images};"
            " put the images back, or start a new run."
        )
    if state.get("class_names") != list(class_names):
        raise RunError(
            f"the classes in {data} were changed: the run was trained on {', '.join(state['class_names'][:5])}, and now"
            f" there are {', '.join(class_names[:5])}; put them back, or start a new run."
        )


def unpack(state: dict[str, Any], learned: TrainState) -> Progress:
    """Puts the state where it belongs.

    Raises:
        RunError: It does not fit.
    """
    try:
        learned.network.load_state_dict(state["model"])
        if isinstance(learned.trained, FeatureStudent):
            learned.trained.projection.load_state_dict(state["projection"])
        learned.optimizer.load_state_dict(state["optimizer"])
        learned.scaler.load_state_dict(state["scaler"])
        if learned.average is not None:
            learned.average.load_state_dict(state["average"])
        return Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"the saved state does not fit the run ({str(error).splitlines()[0]}); it is damaged or of another run."
        ) from error
