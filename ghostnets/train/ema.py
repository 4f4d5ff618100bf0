"""The moving average of the weights, which is often better than the weights themselves."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["build_ema"]


def build_ema(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of weights and normalisation statistics; ``update_parameters`` goes one step on.

    At step n the decay is at most (1 + n) / (10 + n), so that a short run, or the beginning of a long one, is not held
    back by weights that were random (as TensorFlow's ``ExponentialMovingAverage`` does with a number of updates).

    Args:
        network: The network; it is copied.
        decay: Share of the old average that a step keeps, below 1.
    """

    @torch.no_grad()
    def update(average: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(average, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
