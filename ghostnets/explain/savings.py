"""What the cheap operations save: a Ghost network beside the plain-convolution network of the same shape."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress import reparameterize
from ghostnets.layers import GhostModule, theoretical_speedup
from ghostnets.measure import Cost, LayerCost, count

__all__ = ["LatencyComparison", "Savings", "StageCost", "compare_latency", "compute_savings"]

REPEATS = 15


@dataclass(frozen=True)
class StageCost:
    """One stage of the network.

    Attributes:
        name: ``"conv_stem"``, ``"blocks.3"``, ...
        output_shape: (C, H, W) or (C,).
        params: Weights of its convolutions and linear layers.
        macs: Multiply-adds.
        activation_bytes: Outputs of its convolutions and linear layers.
        plain_params, plain_macs: Of the same stage with ordinary convolutions, or None without such a twin.
    """

    name: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    activation_bytes: int
    plain_params: int | None
    plain_macs: int | None


@dataclass(frozen=True)
class Savings:
    """A network by stage, next to its plain twin.

    Attributes:
        stages: In the order they run.
        params, macs, activation_bytes: Of the whole network; ``params`` with normalisation.
        plain_params, plain_macs: Of the twin, or None.
        module_macs, plain_module_macs: Of the Ghost modules alone, and of the plain convolutions in their places.
        module_params, plain_module_params: Weights of their convolutions.
        theoretical_ratio: What equation 4 of the paper gives for the multiply-adds of these modules together, or None
            without any.
        theoretical_compression: What equation 5 gives for their weights together, or None without any.
        input_shape: (C, H, W).
        not_counted: Kinds of layers that are in none of the numbers, with their number.
    """

    stages: tuple[StageCost, ...]
    params: int
    macs: int
    activation_bytes: int
    plain_params: int | None
    plain_macs: int | None
    module_macs: int
    plain_module_macs: int | None
    module_params: int
    plain_module_params: int | None
    theoretical_ratio: float | None
    theoretical_compression: float | None
    input_shape: tuple[int, ...]
    not_counted: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LatencyComparison:
    """Two networks timed in turns, one image at a time.

    Attributes:
        milliseconds: Median for the network.
        plain_milliseconds: Median for its plain twin.
        ratio: Median of the twin's time over the network's, turn by turn: above 1 the network is faster.
        quartiles: Of these ratios, the first and the third.
        repeats: Number of turns, after two that are not counted.
        threads: Of torch.
    """

    milliseconds: float
    plain_milliseconds: float
    ratio: float
    quartiles: tuple[float, float]
    repeats: int
    threads: int


@torch.inference_mode()
def compare_latency(model: nn.Module, plain: nn.Module, x: Tensor) -> LatencyComparison:
    """Times both networks, in evaluation mode, branches merged, on the input ``x`` (1, C, H, W), in turns."""
    model, plain = reparameterize(model), reparameterize(plain)
    seconds: list[tuple[float, float]] = []
    for turn in range(REPEATS + 2):
        times = []
        for network in (model, plain):
            before = time.perf_counter()
            network(x)
            times.append(time.perf_counter() - before)
        if turn >= 2:
            seconds.append((times[0], times[1]))
    ratios = [twin / own for own, twin in seconds]
    first, _, third = statistics.quantiles(ratios, n=4)
    return LatencyComparison(
        milliseconds=1000 * statistics.median(own for own, _ in seconds),
        plain_milliseconds=1000 * statistics.median(twin for _, twin in seconds),
        ratio=statistics.median(ratios),
        quartiles=(first, third),
        repeats=REPEATS,
        threads=torch.get_num_threads(),
    )


def compute_savings(model: nn.Module, plain: nn.Module | None, input_shape: tuple[int, ...]) -> Savings:
    """Counts both networks as they run once they are trained: branches (GhostNetV3) are merged first.

    Args:
        model: The network; left as it is.
        plain: The network of the same names with ``ratio=1``, or None.
        input_shape: (C, H, W).
    """
    model = reparameterize(model)
    cost = count(model, input_shape)
    plain_cost = count(reparameterize(plain), input_shape) if plain is not None else None
    modules = {name: module for name, module in model.named_modules() if isinstance(module, GhostModule)}
    macs, plain_macs = (_below(c, modules, lambda layer: layer.macs) if c else None for c in (cost, plain_cost))
    params, plain_params = (_below(c, modules, _weights) if c else None for c in (cost, plain_cost))
    assert macs is not None
    assert params is not None
    return Savings(
        stages=tuple(_stages(cost, plain_cost)),
        params=cost.params,
        macs=cost.macs,
        activation_bytes=cost.activation_bytes,
        plain_params=plain_cost.params if plain_cost else None,
        plain_macs=plain_cost.macs if plain_cost else None,
        module_macs=macs,
        plain_module_macs=plain_macs,
        module_params=params,
        plain_module_params=plain_params,
        theoretical_ratio=_theoretical(plain_cost, modules, lambda layer: layer.macs)
        if plain_cost and modules
        else None,
        theoretical_compression=_theoretical(plain_cost, modules, _weights) if plain_cost and modules else None,
        input_shape=cost.input_shape,
        not_counted=cost.not_counted,
    )


def _stages(cost: Cost, plain: Cost | None) -> Iterator[StageCost]:
    stages: dict[str, list[LayerCost]] = {}
    for layer in cost.layers:
        stages.setdefault(_stage_of(layer.name), []).append(layer)
    for name, layers in stages.items():
        twins = [layer for layer in plain.layers if _stage_of(layer.name) == name] if plain else None
        yield StageCost(
            name=name,
            output_shape=cost.output_shapes[name],
            params=sum(layer.params for layer in layers),
            macs=sum(layer.macs for layer in layers),
            activation_bytes=sum(layer.output_bytes for layer in layers),
            plain_params=sum(layer.params for layer in twins) if twins is not None else None,
            plain_macs=sum(layer.macs for layer in twins) if twins is not None else None,
        )


def _stage_of(layer_name: str) -> str:
    """``blocks.3.0.ghost1.primary_conv.0`` -> ``blocks.3``; ``conv_stem`` -> ``conv_stem``."""
    parts = layer_name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


def _below(cost: Cost, modules: dict[str, GhostModule], value: Callable[[LayerCost], int]) -> int:
    prefixes = tuple(f"{name}." for name in modules)
    return sum(value(layer) for layer in cost.layers if layer.name.startswith(prefixes))


def _weights(layer: LayerCost) -> int:
    return layer.params


def _theoretical(plain: Cost, modules: dict[str, GhostModule], value: Callable[[LayerCost], int]) -> float:
    """The ratio of equations 4 and 5 for each module, weighted by what the plain convolution costs."""
    before = after = 0.0
    costs = {layer.name: value(layer) for layer in plain.layers}
    for name, module in modules.items():
        plain_cost = costs[f"{name}.primary_conv.0"]
        before += plain_cost
        after += plain_cost / theoretical_speedup(
            module.in_channels, module.kernel_size, module.ratio, module.cheap_kernel_size
        )
    return before / after
