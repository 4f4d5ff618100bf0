"""Static cost of a network: parameters, multiply-adds (MACs) and activation memory, layer by layer.

One MAC is one multiply-add of a convolution, transposed or not, or of a linear layer, biases excluded: what the
GhostNet papers call FLOPs. Everything else (normalisation, activations, pooling, additions, ...) is not counted;
``Cost.not_counted`` lists the uncounted layers.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Cost", "LayerCost", "count", "evaluation_mode"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


@dataclass(frozen=True)
class LayerCost:
    """Cost of one convolution or linear layer.

    Attributes:
        name: Qualified module name: ``"blocks.0.0.ghost1.primary_conv.0"``.
        kind: ``"conv 1x1"``, ``"depthwise 3x3"``, ``"linear"``, ...
        params: Number of weights and biases.
        macs: Multiply-adds for one image.
        output_shape: Output shape without the batch dimension.
        output_bytes: Size of the output in bytes, in the dtype it was computed in.
    """

    name: str
    kind: str
    params: int
    macs: int
    output_shape: tuple[int, ...]
    output_bytes: int


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image.

    Attributes:
        layers: Convolutions and linear layers, in execution order.
        params: Number of parameters of the network, normalisation included.
        input_shape: (C, H, W).
        output_shapes: Module name -> output shape without the batch dimension, for every module that returns one
            tensor.
        not_counted: Class name -> number of executed layers that MACs leave out.
    """

    layers: tuple[LayerCost, ...]
    params: int
    input_shape: tuple[int, ...]
    output_shapes: dict[str, tuple[int, ...]]
    not_counted: dict[str, int]

    @property
    def macs(self) -> int:
        """Total multiply-adds of all convolutions and linear layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Total output size of all convolutions and linear layers: a lower bound on what a training step stores."""
        return sum(layer.output_bytes for layer in self.layers)


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Count parameters and MACs with one forward pass on zeros.

    The model is left unchanged. A model on the ``meta`` device is counted without computing anything.

    Args:
        model: Any module that takes one tensor.
        input_shape: (C, H, W), without the batch dimension.
    """
    layers: list[LayerCost] = []
    shapes: dict[str, tuple[int, ...]] = {}
    not_counted: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])
            if isinstance(module, COUNTED):
                layers.append(_layer_cost(name, module, inputs, output))
            elif not list(module.children()) and not isinstance(module, nn.Identity | nn.Sequential | nn.Dropout):
                not_counted[type(module).__name__] += 1

        return record

    parameters = list(model.parameters())
    parameter = next((p for p in parameters if p.is_floating_point()), parameters[0])
    with evaluation_mode(model), ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(hook(name)))
            if parameter.is_meta and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                hooks.enter_context(_pass_through(module))
        model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    params = sum(p.numel() for p in parameters)
    return Cost(tuple(layers), params, tuple(input_shape), shapes, dict(not_counted))


def _identity(x: Tensor) -> Tensor:
    return x


@contextmanager
def _pass_through(module: nn.Module) -> Iterator[None]:
    """Let a module return its input: of normalisation without values, torch infers the shape by ten operations."""
    module.__dict__["forward"] = _identity
    try:
        yield
    finally:
        del module.__dict__["forward"]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put all modules in evaluation mode, and restore each module's own mode on exit."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


def _layer_cost(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> LayerCost:
    weight = module.weight
    assert isinstance(weight, Tensor)
    outputs = output.numel()  # of the one image, also where a network has its windows or patches as a batch
    kind = "linear"
    if not isinstance(module, nn.Linear):
        assert isinstance(module, nn.modules.conv._ConvNd)
        size = "x".join(map(str, module.kernel_size))
        is_depthwise = module.groups == module.in_channels and module.groups > 1
        kind = f"depthwise {size}" if is_depthwise else f"conv {size}"
        kind = f"transposed {kind}" if isinstance(module, TRANSPOSED) else kind
    # Each output element is a dot product with one filter of in_channels / groups * kernel area weights. Transposed,
    # each input element is multiplied by out_channels / groups * kernel area weights.
    elements = inputs[0].numel() if isinstance(module, TRANSPOSED) else outputs
    macs = elements * (weight.numel() // weight.shape[0])
    params = sum(p.numel() for p in module.parameters())
    return LayerCost(name, kind, params, macs, tuple(output.shape[1:]), outputs * output.element_size())
