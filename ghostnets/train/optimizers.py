"""The optimiser of a recipe, and which weights it treats how."""

import torch
from torch import nn
from torch.optim import Optimizer

from ghostnets.models import Network
from ghostnets.train.lamb import Lamb
from ghostnets.train.recipe import Recipe

__all__ = ["build_optimizer", "set_learning_rate"]


def build_optimizer(trained: nn.Module, network: Network, recipe: Recipe) -> Optimizer:
    """SGD, AdamW, RMSprop or LAMB over groups of weights that share weight decay and learning rate.

    Biases and normalisation, which are vectors, have no weight decay unless ``recipe.decay_all``. Each group has a
    ``"lr_scale"``: with ``layer_decay`` below 1 it falls from the classifier towards the input, stage by stage.

    Args:
        trained: What holds the weights to be trained.
        network: The network that they are of; tells the order of the stages.
        recipe: The recipe.
    """
    names = {weight: name for name, weight in network.named_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in trained.parameters():
        decay = recipe.weight_decay if recipe.decay_all or weight.ndim > 1 else 0.0
        scale = recipe.layer_decay ** _stages_after(names.get(weight, "head"), network)
        groups.setdefault((decay, scale), []).append(weight)
    listed = [
        {"params": weights, "weight_decay": decay, "lr_scale": scale, "lr": recipe.lr * scale}
        for (decay, scale), weights in groups.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=recipe.lr, momentum=0.9, nesterov=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=recipe.lr)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(listed, lr=recipe.lr, momentum=0.9, alpha=0.9, eps=1e-3)
    return Lamb(listed, lr=recipe.lr)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the classifier; that of each group is its ``"lr_scale"`` of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _stages_after(name: str, network: Network) -> int:
    """How many stages of the path come after the one that a weight belongs to; 0 for the head."""
    stages = [stage for stage in network.path if any(True for _ in network.get_submodule(stage).parameters())]
    for place, stage in enumerate(stages):
        if name.startswith(f"{stage}."):
            return len(stages) - place
    return 0
