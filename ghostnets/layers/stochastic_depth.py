"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016 (arXiv 1603.09382)."""

from torch import nn

__all__ = ["drop_path", "drop_path_rates"]


def drop_path(rate: float) -> nn.Module:
    """Build the layer that drops a residual branch with probability ``rate``, per image and in training only."""
    if not rate:
        return nn.Identity()
    from torchvision.ops import StochasticDepth

    return StochasticDepth(rate, "row")


def drop_path_rates(last: float, count: int) -> list[float]:
    """Return the rates of ``count`` blocks: they grow linearly from 0 to ``last`` (the paper's linear decay rule)."""
    return [last * index / max(1, count - 1) for index in range(count)]
