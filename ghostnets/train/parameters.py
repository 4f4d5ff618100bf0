"""Parameter groups: weight decay and learning rate of each weight."""

from torch import nn
from torch.optim import Optimizer

from ghostnets.models import Network
from ghostnets.train.optimizers import OPTIMIZERS
from ghostnets.train.recipe import Recipe

__all__ = ["build_optimizer", "set_learning_rate"]


def build_optimizer(trained: nn.Module, network: nn.Module, recipe: Recipe) -> Optimizer:
    """Build the optimizer of a recipe over groups of weights that share weight decay and learning rate.

    Biases and normalisation, which are vectors, have no weight decay unless ``recipe.decay_all``. Each group has an
    ``"lr_scale"``: with ``layer_decay`` below 1 it falls from the classifier towards the input, stage by stage.

    Args:
        trained: Module whose weights are trained.
        network: Network that contains these weights; gives the order of the stages.
        recipe: The recipe.
    """
    names = {weight: name for name, weight in network.named_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in trained.parameters():
        decay = recipe.weight_decay if recipe.decay_all or weight.ndim > 1 else 0.0
        scale = 1.0
        if recipe.layer_decay != 1 and isinstance(network, Network):
            scale = recipe.layer_decay ** _num_stages_after(names.get(weight, "head"), network)
        groups.setdefault((decay, scale), []).append(weight)
    listed = [
        {"params": weights, "weight_decay": decay, "lr_scale": scale, "lr": recipe.lr * scale}
        for (decay, scale), weights in groups.items()
    ]
    return OPTIMIZERS[recipe.optimizer](listed, recipe.lr)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the classifier; that of each group is scaled by its ``"lr_scale"``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _num_stages_after(name: str, network: Network) -> int:
    """Number of stages of the path after the one that a weight belongs to; 0 for the head."""
    stages = [stage for stage in network.path if any(True for _ in network.get_submodule(stage).parameters())]
    for index, stage in enumerate(stages):
        if name.startswith(f"{stage}."):
            return len(stages) - index
    return 0
