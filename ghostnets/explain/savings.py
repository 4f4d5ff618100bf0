"""Savings of the cheap operations: a Ghost network against its plain counterpart with ordinary convolutions."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress import reparameterize
from ghostnets.layers import GhostModule, theoretical_speedup
from ghostnets.measure import Cost, LayerCost, Runner, count, speedup, time_interleaved

__all__ = ["LatencyComparison", "Savings", "StageCost", "compare_latency", "compute_savings"]

REPEATS = 15
MACS: Callable[[LayerCost], int] = attrgetter("macs")
PARAMS: Callable[[LayerCost], int] = attrgetter("params")


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage of the network.

    Attributes:
        name: ``"conv_stem"``, ``"blocks.3"``, ...
        output_shape: (C, H, W) or (C,); of a stage that returns several maps, that of its last layer.
        params: Number of parameters of its convolutions and linear layers.
        macs: Multiply-adds.
        activation_bytes: Output size of its convolutions and linear layers.
        plain_params, plain_macs: Parameters and multiply-adds of the plain counterpart's stage; None without one.
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
    """Cost of a network by stage, against its plain counterpart.

    Attributes:
        stages: Stages in execution order.
        params, macs, activation_bytes: Totals of the network; ``params`` includes normalisation.
        plain_params, plain_macs: Totals of the plain counterpart, or None.
        module_macs, plain_module_macs: Multiply-adds of the Ghost modules, and of the convolutions that replace them.
        module_params, plain_module_params: Parameters of the same convolutions.
        theoretical_ratio: Speedup of the Ghost modules by equation 4 of the GhostNet paper; None without Ghost modules
            or plain counterpart.
        theoretical_compression: Compression of their weights by equation 5, likewise.
        input_shape: (C, H, W).
        not_counted: Class name -> number of layers that no number includes.
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
    """Interleaved timing of a network and its plain counterpart, one image at a time.

    Attributes:
        milliseconds: Median time of the network.
        plain_milliseconds: Median time of the plain counterpart.
        ratio: Median speedup over the plain counterpart, round by round; above 1 the network is faster.
        quartiles: Lower and upper quartile of the speedup.
        repeats: Number of timed runs of either network.
        threads: Number of torch threads.
    """

    milliseconds: float
    plain_milliseconds: float
    ratio: float
    quartiles: tuple[float, float]
    repeats: int
    threads: int


@torch.inference_mode()
def compare_latency(model: nn.Module, plain: nn.Module, x: Tensor) -> LatencyComparison:
    """Time a network and its plain counterpart alternately on ``x`` (1, C, H, W), both in evaluation mode.

    Training-time branches are merged first.
    """
    networks = {"model": reparameterize(model), "plain": reparameterize(plain)}
    runners = {name: Runner(partial(network, x)) for name, network in networks.items()}
    timings = time_interleaved(runners, runs=REPEATS, rounds=REPEATS)
    low, median, high = speedup(timings["plain"], timings["model"])
    return LatencyComparison(
        milliseconds=1000 * timings["model"].median,
        plain_milliseconds=1000 * timings["plain"].median,
        ratio=median,
        quartiles=(low, high),
        repeats=REPEATS,
        threads=torch.get_num_threads(),
    )


def compute_savings(model: nn.Module, plain: nn.Module | None, input_shape: tuple[int, ...]) -> Savings:
    """Count a network and its plain counterpart in their inference form, training-time branches merged.

    Args:
        model: The network; left unchanged.
        plain: The same architecture with ``ratio=1``, or None.
        input_shape: (C, H, W).
    """
    model = reparameterize(model)
    cost = count(model, input_shape)
    plain_cost = count(reparameterize(plain), input_shape) if plain is not None else None
    modules = {name: module for name, module in model.named_modules() if isinstance(module, GhostModule)}
    return Savings(
        stages=tuple(_stages(cost, plain_cost)),
        params=cost.params,
        macs=cost.macs,
        activation_bytes=cost.activation_bytes,
        plain_params=plain_cost.params if plain_cost else None,
        plain_macs=plain_cost.macs if plain_cost else None,
        module_macs=_sum_inside(cost, modules, MACS),
        plain_module_macs=_sum_inside(plain_cost, modules, MACS) if plain_cost else None,
        module_params=_sum_inside(cost, modules, PARAMS),
        plain_module_params=_sum_inside(plain_cost, modules, PARAMS) if plain_cost else None,
        theoretical_ratio=_theoretical_ratio(plain_cost, modules, MACS) if plain_cost and modules else None,
        theoretical_compression=_theoretical_ratio(plain_cost, modules, PARAMS) if plain_cost and modules else None,
        input_shape=cost.input_shape,
        not_counted=cost.not_counted,
    )


def _stages(cost: Cost, plain: Cost | None) -> Iterator[StageCost]:
    stages: dict[str, list[LayerCost]] = {}
    for layer in cost.layers:
        stages.setdefault(_stage_of(layer.name), []).append(layer)
    for name, layers in stages.items():
        plain_layers = [layer for layer in plain.layers if _stage_of(layer.name) == name] if plain else None
        yield StageCost(
            name=name,
            output_shape=cost.output_shapes.get(name, layers[-1].output_shape),
            params=sum(layer.params for layer in layers),
            macs=sum(layer.macs for layer in layers),
            activation_bytes=sum(layer.output_bytes for layer in layers),
            plain_params=sum(layer.params for layer in plain_layers) if plain_layers is not None else None,
            plain_macs=sum(layer.macs for layer in plain_layers) if plain_layers is not None else None,
        )


def _stage_of(layer_name: str) -> str:
    """``blocks.3.0.ghost1.primary_conv.0`` -> ``blocks.3``; ``conv_stem`` -> ``conv_stem``."""
    parts = layer_name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


def _sum_inside(cost: Cost, modules: dict[str, GhostModule], value: Callable[[LayerCost], int]) -> int:
    """Sum a value over the layers inside the given modules."""
    prefixes = tuple(f"{name}." for name in modules)
    return sum(value(layer) for layer in cost.layers if layer.name.startswith(prefixes))


def _theoretical_ratio(plain: Cost, modules: dict[str, GhostModule], value: Callable[[LayerCost], int]) -> float:
    """Combine the ratios of equations 4 and 5 over all modules, weighted by the cost of the plain convolutions."""
    before = after = 0.0
    costs = {layer.name: value(layer) for layer in plain.layers}
    for name, module in modules.items():
        plain_cost = costs[f"{name}.primary_conv.0"]
        before += plain_cost
        after += plain_cost / theoretical_speedup(
            module.in_channels, module.kernel_size, module.ratio, module.cheap_kernel_size
        )
    return before / after
