"""Multiply-adds and measured time of a network, grouped by Ghost module."""

from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.explain.ghosts import find_ghost_modules
from ghostnets.measure import profile

__all__ = ["LayerGroupCost", "measure_cost_by_layer"]


@dataclass(frozen=True)
class LayerGroupCost:
    """Cost of a Ghost module with all its children, or of a group of other modules.

    Attributes:
        name: Name of the Ghost module; of the block, for its other modules; outside blocks, of the parent or of the
            top-level module. "" is the network itself.
        is_ghost: Whether the group is a Ghost module.
        macs: Multiply-adds of its convolutions and linear layers, for one image.
        seconds: Sum of the median self times of its modules.
    """

    name: str
    is_ghost: bool
    macs: int
    seconds: float


def measure_cost_by_layer(model: nn.Module, x: Tensor, *, runs: int = 10) -> list[LayerGroupCost]:
    """Profile a network (``measure.profile``) and sum the modules of each group, in network order.

    Args:
        model: Any network in evaluation mode; left unchanged.
        x: Preprocessed image, (1, C, H, W).
        runs: Number of timed runs.
    """
    ghosts = list(find_ghost_modules(model))
    blocks = sorted({name.rpartition(".")[0] for name in ghosts} - {""}, key=len, reverse=True)  # innermost first
    macs: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for module in profile(model, x, runs=runs).modules:
        ancestors = (name for name in (*ghosts, *blocks) if f"{module.name}.".startswith(f"{name}."))
        name = next(ancestors, module.name.rpartition(".")[0] or module.name)
        macs[name] = macs.get(name, 0) + module.macs
        seconds[name] = seconds.get(name, 0.0) + module.seconds
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    return [
        LayerGroupCost(name, name in ghosts, macs[name], seconds[name]) for name in sorted(macs, key=order.__getitem__)
    ]
