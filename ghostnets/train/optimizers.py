"""The optimizers that a recipe can name. Loads torch when one is built, not when their names are listed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["OPTIMIZERS"]

Groups = list[dict[str, Any]]


def _sgd(groups: Groups, lr: float) -> "Optimizer":
    from torch.optim import SGD

    return SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def _adamw(groups: Groups, lr: float) -> "Optimizer":
    from torch.optim import AdamW

    return AdamW(groups, lr=lr)


def _rmsprop(groups: Groups, lr: float) -> "Optimizer":
    from torch.optim import RMSprop

    return RMSprop(groups, lr=lr, momentum=0.9, alpha=0.9, eps=1e-3)  # as for GhostNetV2


def _lamb(groups: Groups, lr: float) -> "Optimizer":
    from ghostnets.train.lamb import Lamb

    return Lamb(groups, lr=lr)


# Parameter groups and learning rate -> optimizer.
OPTIMIZERS: dict[str, Callable[[Groups, float], "Optimizer"]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "lamb": _lamb,
}
