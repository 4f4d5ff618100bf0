"""Exponential moving average (EMA) of the weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["build_ema"]


def build_ema(network: nn.Module, decay: float) -> AveragedModel:
    """Build the EMA of weights and normalisation statistics; ``update_parameters`` is called after each step.

    At step n the decay is at most (1 + n) / (10 + n), so that random initial weights do not dominate a short run or the
    start of a long one (as in TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        network: The network; it is copied.
        decay: Decay per step, below 1.
    """

    @torch.no_grad()
    def update(average: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(average, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
