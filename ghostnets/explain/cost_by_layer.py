"""What a network costs, Ghost module by Ghost module: multiply-adds beside measured time."""

from dataclasses import dataclass

from torch import Tensor, nn

from ghostnets.explain.ghosts import find_ghost_modules
from ghostnets.measure import profile

__all__ = ["LayerGroupCost", "measure_cost_by_layer"]


@dataclass(frozen=True)
class LayerGroupCost:
    """A Ghost module with everything in it, or what stands beside them.

    Attributes:
        name: Of the Ghost module; or of the block whose rest it is, with or without Ghost modules in it; or of a module
            that stands in no block. "" is what the network does outside of its modules.
        is_ghost: Whether it is a Ghost module.
        macs: Multiply-adds of its convolutions and linear layers, for one image.
        seconds: Median over the runs, measured module by module and added up.
    """

    name: str
    is_ghost: bool
    macs: int
    seconds: float


def measure_cost_by_layer(model: nn.Module, x: Tensor, *, runs: int = 10) -> list[LayerGroupCost]:
    """Profiles a network (``measure.profile``) and adds up what belongs together, in the network's order.

    Args:
        model: Any network in evaluation mode; it is left as it was.
        x: (1, C, H, W), ready for the network.
        runs: So many times it is run with a clock at every module, and as many without.
    """
    ghosts = list(find_ghost_modules(model))
    blocks = sorted({name.rpartition(".")[0] for name in ghosts} - {""}, key=len, reverse=True)  # the innermost first
    macs: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for module in profile(model, x, runs=runs).modules:
        within = (name for name in (*ghosts, *blocks) if f"{module.name}.".startswith(f"{name}."))
        name = next(within, module.name.rpartition(".")[0] or module.name)
        macs[name] = macs.get(name, 0) + module.macs
        seconds[name] = seconds.get(name, 0.0) + module.seconds
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return [
        LayerGroupCost(name, name in ghosts, macs[name], seconds[name]) for name in sorted(macs, key=order.__getitem__)
    ]
