"""What the cheap operations save: a Ghost network beside the plain-convolution network of the same shape."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ghostnets.layers import GhostModule, theoretical_speedup
from ghostnets.measure import Cost, LayerCost, count

__all__ = ["Savings", "StageCost", "ghost_savings"]


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
        theoretical_ratio: What equation 4 of the paper gives for these modules together, or None without any.
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
    theoretical_ratio: float | None
    input_shape: tuple[int, ...]
    not_counted: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ghost_savings(model: nn.Module, plain: nn.Module | None, input_shape: tuple[int, ...]) -> Savings:
    """Counts both networks.

    Args:
        model: The network.
        plain: The network of the same names with ``ratio=1``, or None.
        input_shape: (C, H, W).
    """
    cost = count(model, input_shape)
    plain_cost = count(plain, input_shape) if plain is not None else None
    modules = {name: module for name, module in model.named_modules() if isinstance(module, GhostModule)}
    module_macs = _macs_below(cost, modules)
    plain_module_macs = _macs_below(plain_cost, modules) if plain_cost else None
    return Savings(
        stages=tuple(_stages(cost, plain_cost)),
        params=cost.params,
        macs=cost.macs,
        activation_bytes=cost.activation_bytes,
        plain_params=plain_cost.params if plain_cost else None,
        plain_macs=plain_cost.macs if plain_cost else None,
        module_macs=module_macs,
        plain_module_macs=plain_module_macs,
        theoretical_ratio=_theoretical_ratio(plain_cost, modules) if plain_cost and modules else None,
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


def _macs_below(cost: Cost, modules: dict[str, GhostModule]) -> int:
    prefixes = tuple(f"{name}." for name in modules)
    return sum(layer.macs for layer in cost.layers if layer.name.startswith(prefixes))


def _theoretical_ratio(plain: Cost, modules: dict[str, GhostModule]) -> float:
    """Equation 4 for each module, weighted by the multiply-adds of the plain convolution."""
    before = after = 0.0
    macs = {layer.name: layer.macs for layer in plain.layers}
    for name, module in modules.items():
        plain_macs = macs[f"{name}.primary_conv.0"]
        before += plain_macs
        after += plain_macs / theoretical_speedup(
            module.in_channels, module.kernel_size, module.ratio, module.cheap_kernel_size
        )
    return before / after
