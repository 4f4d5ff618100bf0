"""The optimizers that a recipe can name."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from ghostnets.train.lamb import Lamb

__all__ = ["OPTIMIZERS"]

Groups = list[dict[str, Any]]

# Parameter groups and learning rate -> optimizer. RMSprop has the constants of GhostNetV2's training.
OPTIMIZERS: dict[str, Callable[[Groups, float], Optimizer]] = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True),
    "adamw": lambda groups, lr: torch.optim.AdamW(groups, lr=lr),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr, momentum=0.9, alpha=0.9, eps=1e-3),
    "lamb": lambda groups, lr: Lamb(groups, lr=lr),
}
