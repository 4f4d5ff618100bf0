"""What a network costs on paper: parameters, multiply-adds and activation memory, layer by layer.

Convention: one multiply-add of a convolution or linear layer is one MAC, biases left out. The "FLOPs" of the GhostNet
papers are these. Everything else (normalisation, activations, pooling, additions, ...) is not counted; ``Cost`` names
the layers that were passed over.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Cost", "LayerCost", "count"]


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer.

    Attributes:
        name: Within the network: ``"blocks.0.0.ghost1.primary_conv.0"``.
        kind: ``"conv 1x1"``, ``"depthwise 3x3"``, ``"linear"``, ...
        params: Weights and biases.
        macs: Multiply-adds for the input that was measured.
        output_shape: Without the batch dimension.
        output_bytes: Of the output as it was computed.
    """

    name: str
    kind: str
    params: int
    macs: int
    output_shape: tuple[int, ...]
    output_bytes: int


@dataclass(frozen=True)
class Cost:
    """A network, for one input.

    Attributes:
        layers: Convolutions and linear layers, in the order they ran.
        params: All parameters of the network, normalisation included.
        input_shape: Without the batch dimension.
        output_shapes: Of every module that gave one tensor, by its name, without the batch dimension.
        not_counted: Kinds of layers that ran and were not counted, with their number.
    """

    layers: tuple[LayerCost, ...]
    params: int
    input_shape: tuple[int, ...]
    output_shapes: dict[str, tuple[int, ...]]
    not_counted: dict[str, int]

    @property
    def macs(self) -> int:
        """Multiply-adds of all convolutions and linear layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Outputs of all convolutions and linear layers together: what a training step keeps at the least."""
        return sum(layer.output_bytes for layer in self.layers)


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Runs the network once on zeros and counts.

    Nothing of the network changes; it may stand on the ``meta`` device, where nothing is computed either.

    Args:
        model: Any module that takes one tensor.
        input_shape: (C, H, W), without the batch dimension.
    """
    layers: list[LayerCost] = []
    shapes: dict[str, tuple[int, ...]] = {}
    passed_over: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                layers.append(_layer_cost(name, module, output))
            elif not list(module.children()) and not isinstance(module, nn.Identity | nn.Sequential | nn.Dropout):
                passed_over[type(module).__name__] += 1

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    parameter = next(model.parameters())
    was_training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in was_training.items():
            module.training = training
    params = sum(p.numel() for p in model.parameters())
    return Cost(tuple(layers), params, tuple(input_shape), shapes, dict(passed_over))


def _layer_cost(name: str, module: nn.Module, output: Tensor) -> LayerCost:
    weight = module.weight
    assert isinstance(weight, Tensor)
    outputs = output.numel() // output.shape[0]  # batch of 1
    kind = "linear"
    if not isinstance(module, nn.Linear):
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        size = "x".join(map(str, module.kernel_size))
        is_depthwise = module.groups == module.in_channels and module.groups > 1
        kind = f"depthwise {size}" if is_depthwise else f"conv {size}"
    # Each output number is a sum over one filter: in_channels / groups * kernel area products.
    macs = outputs * (weight.numel() // weight.shape[0])
    params = sum(p.numel() for p in module.parameters())
    return LayerCost(name, kind, params, macs, tuple(output.shape[1:]), outputs * output.element_size())
