"""Simulation of int8 in torch: layers with rounded weights that read rounded maps."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.sites import has_own_weights
from ghostnets.errors import ConfigurationError
from ghostnets.layers import RepConv

__all__ = ["METHODS", "Ranges", "check_weights", "find_ranges", "quantizable_layers", "rounded", "simulated"]

METHODS = ("percentile", "minmax")
PERCENT = 99.99  # of an image's values are within the range, on either side, as in the engine
OUTLIER = 4.0  # times the median image's bound: beyond it is a rare image, as in the engine
LEVELS = 255
WEIGHT_LEVELS = 127

Ranges = Mapping[str, tuple[float, float]]


def quantizable_layers(model: nn.Module, x: Tensor) -> list[str]:
    """Return the convolutions and linear layers that run once, on a positional input, in order of execution.

    Convolutions of maps without a batch are left out.

    Args:
        model: Network in evaluation mode.
        x: Images that it runs on.
    """
    runs: list[str] = []
    left_out: set[str] = set()

    def record(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        runs.append(name)
        if not inputs or (isinstance(layer, nn.Conv2d) and inputs[0].dim() != 4):
            left_out.add(name)

    branches = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, RepConv))
    handles = [
        module.register_forward_hook(lambda layer, inputs, _, name=name: record(name, layer, inputs))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith(branches)
    ]
    with temporary_hooks(handles), torch.no_grad():
        model(x)
    return [name for name in runs if runs.count(name) == 1 and name not in left_out]


def check_weights(model: nn.Module, layers: Iterable[str]) -> None:
    """Check that the weights of layers can be changed.

    Raises:
        ConfigurationError: They are computed from others.
    """
    for name in layers:
        if not has_own_weights(model.get_submodule(name)):
            raise ConfigurationError(
                f"the weights of {name} are computed from others; make them plain parameters first, by"
                " torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm, remove_spectral_norm or"
                " prune.remove."
            )


def find_ranges(
    model: nn.Module, batches: Iterable[Tensor], names: Iterable[str], method: str
) -> dict[str, tuple[float, float]]:
    """Find the range of the values that each layer reads, 0 included.

    Args:
        model: Network in evaluation mode.
        batches: Images.
        names: Names of the layers.
        method: ``"percentile"``: within the percentiles 0.01 and 99.99 of each image, and within ``OUTLIER`` times what
            the median image has; ``"minmax"``: all values.
    """
    bounds: dict[str, list[Tensor]] = {name: [] for name in names}

    def record(name: str, values: Tensor) -> None:
        flat = values.detach().float().flatten(1)
        count = flat.shape[1]
        outside = math.floor(count * (100 - PERCENT) / 100) if method == "percentile" else 0
        high = flat.topk(1 + outside, 1).values[:, -1]
        low = flat.topk(1 + outside, 1, largest=False).values[:, -1] if (flat < 0).any() else torch.zeros_like(high)
        bounds[name].append(torch.stack([-low, high]).clamp(min=0))

    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: record(name, inputs[0]))
        for name in bounds
    ]
    with temporary_hooks(handles), torch.no_grad():
        for batch in batches:
            model(batch)
    return {name: _join(torch.cat(found, 1), method) for name, found in bounds.items()}


def _join(bounds: Tensor, method: str) -> tuple[float, float]:
    """Return the range of all images from the distances of their bounds below and above 0, (2, N)."""
    widest = bounds.amax(1)
    if method == "percentile":
        limit = OUTLIER * bounds.median(1).values
        widest = torch.where(limit > 0, widest.minimum(limit), widest)
    return -float(widest[0]), float(widest[1])


def rounded(values: Tensor, low: float, high: float) -> Tensor:
    """Round values to 256 levels between two bounds; 0 is one of the levels."""
    scale = (high - low) / LEVELS
    if not scale > 0:
        return torch.zeros_like(values)
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, LEVELS).sub(zero).mul(scale)


def _rounded_weight(weight: Tensor) -> Tensor:
    """Round weights to integers from -127 to 127 with a scale for each output."""
    step = weight.flatten(1).abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / WEIGHT_LEVELS
    step = step.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight / step).round() * step


def _straight_through(quantized: Tensor, values: Tensor) -> Tensor:
    """Return quantised values with the gradient of these values."""
    return quantized.detach() + (values - values.detach()) if values.requires_grad else quantized


@contextmanager
def simulated(model: nn.Module, ranges: Ranges) -> Iterator[None]:
    """Simulate int8 in some layers while the context is open.

    A scale for each output commutes with the normalisation that follows a layer, so it need not be folded first. For
    training, the gradient of rounding is 1, and 0 outside of the range of a map.

    Args:
        model: Network, restored at the end.
        ranges: Names of these layers, and the ranges of what they read.
    """
    handles = []
    for name, (low, high) in ranges.items():
        layer = model.get_submodule(name)
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        handles.append(layer.register_forward_pre_hook(_rounding_hook(weight, low, high)))
        handles.append(layer.register_forward_hook(_restoring_hook(weight), always_call=True))
    with temporary_hooks(handles):
        yield


def _rounding_hook(weight: nn.Parameter, low: float, high: float) -> Any:
    """Return a hook that gives a layer rounded inputs and a rounded weight."""

    def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        layer._parameters["weight"] = _straight_through(_rounded_weight(weight), weight)  # type: ignore[assignment]
        return _straight_through(rounded(inputs[0], low, high), inputs[0].clamp(low, high)), *inputs[1:]

    return hook


def _restoring_hook(weight: nn.Parameter) -> Any:
    """Return a hook that gives a layer its own weight back."""

    def hook(layer: nn.Module, _: Any, __: Any) -> None:
        layer._parameters["weight"] = weight

    return hook
