"""Maps as the native training kernels keep them, and the calls of these kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "ConvNorm",
    "Gradient",
    "Map",
    "NormGradient",
    "Target",
    "convolve",
    "convolve_back",
    "gradient_of_filter",
    "join",
]


@cache
def native(verb: str, dtype: torch.dtype) -> Any:
    """The kernel ``verb`` for this type of numbers."""
    return getattr(import_module("ghostnets.layers._training"), f"{verb}_{'f64' if dtype == torch.float64 else 'f32'}")


def address(tensor: Tensor | None, channel: int = 0) -> int:
    """Where the tensor's numbers are, from ``channel`` of the last dimension on; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr() + channel * tensor.element_size()


@dataclass(slots=True)
class ConvNorm:
    """The parameters of a convolution without bias and of its normalisation, as autograd knows them."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    weight: Tensor
    gamma: Tensor
    beta: Tensor


@dataclass(slots=True)
class Map:
    """The raw output of a convolution, or an ordinary map, and how it is read.

    Attributes:
        values: (N, H, W, C), contiguous.
        statistics: (4, C): mean, 1 / deviation, scale, shift; None where values are taken as they are.
        relu: Whether ReLU follows the normalisation.
        gate: (N, all channels of the gated map) that multiplies what is read, None for none.
        gate_from: The first of these channels that is for this map.
    """

    values: Tensor
    statistics: Tensor | None = None
    relu: bool = False
    gate: Tensor | None = None
    gate_from: int = 0

    @property
    def channels(self) -> int:
        return self.values.shape[3]

    @property
    def gate_stride(self) -> int:
        return 0 if self.gate is None else self.gate.shape[1]

    def native(self) -> tuple[int, ...]:
        gate = address(self.gate, self.gate_from)
        statistics, row = address(self.statistics), self.channels
        return (self.values.data_ptr(), row, statistics, row, self.relu, gate, self.gate_stride)


@dataclass(slots=True)
class NormGradient:
    """What comes of a gradient's sums: the gradients of a normalisation, and the coefficients that lead through it."""

    gamma: Tensor
    of_gamma: Tensor = field(init=False)
    of_beta: Tensor = field(init=False)
    coefficients: Tensor = field(init=False)  # (3, C)

    def __post_init__(self) -> None:
        self.of_gamma, self.of_beta = torch.empty_like(self.gamma), torch.empty_like(self.gamma)
        self.coefficients = self.gamma.new_empty(3, len(self.gamma))

    def native(self) -> tuple[int, ...]:
        return (
            self.gamma.data_ptr(),
            self.of_gamma.data_ptr(),
            self.of_beta.data_ptr(),
            self.coefficients.data_ptr(),
            len(self.gamma),
        )


@dataclass(slots=True)
class Gradient:
    """The gradient of a raw map, as it is read from that of the activated one.

    Attributes:
        of: The raw map; its gate multiplies the gradient too.
        values: (N, H, W, any number of channels), of the activated (and gated) map.
        first: The first channel of ``values`` that is for this map.
        offset: (N, all channels of the gated map), what is added behind the gate; None for none.
        norm: The normalisation, whose sums are known.
    """

    of: Map
    values: Tensor
    norm: NormGradient | None = None
    first: int = 0
    offset: Tensor | None = None

    def native(self) -> tuple[Any, ...]:
        coefficients = 0 if self.norm is None else self.norm.coefficients.data_ptr()
        values, stride = address(self.values, self.first), self.values.shape[3]
        offset = address(self.offset, self.of.gate_from)
        return (values, stride, self.of.native(), offset, coefficients, self.of.channels)


@dataclass(slots=True)
class Target:
    """Where the gradient of an input goes.

    Attributes:
        values: (N, H, W, C), written.
        add: Added to it; ``values`` themselves may stand here. Its gate and offset are applied as it is read.
        norm: Given what the sums come to; None where they are not wanted, or not known yet.
        image_sums: (2, N, C), given the masked sums of each image: of d, and of d (z - mean). None where not wanted.
    """

    values: Tensor
    add: Gradient | None = None
    norm: NormGradient | None = None
    image_sums: Tensor | None = None

    def native(self) -> tuple[Any, ...]:
        add, norm = self.add, None if self.norm is None else self.norm.native()
        out, by_image = self.values.data_ptr(), address(self.image_sums)
        if add is None:
            return (out, 0, 0, 0, 0, 0, norm, by_image)
        gate, offset = address(add.of.gate, add.of.gate_from), address(add.offset, add.of.gate_from)
        return (
            out,
            address(add.values, add.first),
            add.values.shape[3],
            gate,
            offset,
            add.of.gate_stride,
            norm,
            by_image,
        )


def convolve(inputs: Sequence[Map], layer: ConvNorm, *, relu: bool) -> Map:
    """A 1 x 1 or depthwise convolution over maps side by side; running statistics move as in training."""
    conv, norm = layer.conv, layer.norm
    count, height, width, _ = inputs[0].values.shape
    stride, channels = conv.stride[0], conv.out_channels
    out = layer.weight.new_empty(count, -(-height // stride), -(-width // stride), channels)
    statistics = layer.weight.new_empty(4, channels)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    tensors = (layer.gamma, layer.beta, norm.running_mean, norm.running_var)
    normalisation = (*map(address, tensors), norm.momentum, norm.eps, statistics.data_ptr())
    parts, weight, threads = tuple(m.native() for m in inputs), layer.weight.data_ptr(), torch.get_num_threads()
    if conv.groups == 1:
        run = native("pointwise_forward", out.dtype)
        run(threads, count * height * width, height * width, parts, weight, channels, out.data_ptr(), normalisation)
    else:
        run = native("depthwise_forward", out.dtype)
        size = conv.kernel_size[0]
        run(threads, count, height, width, parts, weight, size, stride, out.data_ptr(), normalisation)
    return Map(out, statistics, relu)


def convolve_back(
    gradient: Gradient, inputs: Sequence[Map], layer: ConvNorm, targets: Sequence[Target]
) -> tuple[Tensor, Tensor, Tensor]:
    """Backwards: the gradients of the inputs go to the targets, those of weight, gamma and beta are returned."""
    assert gradient.norm is not None
    conv, weight = layer.conv, layer.weight
    of_weight = torch.empty_like(weight)
    count, height, width, _ = inputs[0].values.shape
    parts, wanted = tuple(m.native() for m in inputs), tuple(t.native() for t in targets)
    threads, addresses = torch.get_num_threads(), (weight.data_ptr(), of_weight.data_ptr())
    if conv.groups == 1:
        run = native("pointwise_backward", weight.dtype)
        pixels = count * height * width
        run(threads, pixels, height * width, parts, addresses[0], gradient.native(), wanted, addresses[1])
    else:
        run = native("depthwise_backward", weight.dtype)
        size, stride = conv.kernel_size[0], conv.stride[0]
        run(threads, count, height, width, parts, addresses[0], size, stride, gradient.native(), wanted, addresses[1])
    return of_weight, gradient.norm.of_gamma, gradient.norm.of_beta


def gradient_of_filter(x: Tensor, d: Tensor, kernel_size: int, stride: int) -> Tensor:
    """(C, K K): the gradient of a depthwise convolution's weight, from x (N, H, W, C) and d (N, H', W', C), dense."""
    count, height, width, channels = x.shape
    coefficients = torch.zeros(3, channels, dtype=d.dtype)
    coefficients[0] = 1  # d is the gradient of the raw map already
    gradient = (d.data_ptr(), channels, Map(d).native(), 0, coefficients.data_ptr(), channels)
    out, nowhere = x.new_empty(channels, kernel_size**2), (0, 0, 0, 0, 0, 0, None, 0)
    run, threads, maps = native("depthwise_backward", x.dtype), torch.get_num_threads(), (Map(x).native(),)
    run(threads, count, height, width, maps, 0, kernel_size, stride, gradient, (nowhere,), out.data_ptr())
    return out


def join(parts: Sequence[Map], residual: Map | None) -> Tensor:
    """(N, H, W, C): the activated maps side by side, plus the residual."""
    count, height, width, _ = parts[0].values.shape
    out = parts[0].values.new_empty(count, height, width, sum(m.channels for m in parts))
    native("join", out.dtype)(
        torch.get_num_threads(),
        count * height * width,
        tuple(m.native() for m in parts),
        None if residual is None else residual.native(),
        out.data_ptr(),
    )
    return out


def gradient_of_norm(of: Map, values: Tensor, gamma: Tensor, *, first: int = 0) -> Gradient:
    """The gradient of a raw map from that of the activated one, with the sums that this takes."""
    norm = NormGradient(gamma)
    gradient = Gradient(of, values, norm, first)
    pixels = values.shape[0] * values.shape[1] * values.shape[2]
    native("sums", values.dtype)(torch.get_num_threads(), pixels, gradient.native(), norm.native())
    return gradient


def image_sums(of: Map) -> Tensor:
    """(2, N, C): for each image the number of pixels that pass the ReLU, and the sum of z - mean over these."""
    count, height, width, channels = of.values.shape
    out = of.values.new_empty(2, count, channels)
    pixels = count * height * width
    native("image_sums", out.dtype)(torch.get_num_threads(), pixels, height * width, of.native(), out.data_ptr())
    return out


def finish_gradient(of: Map, sums: Tensor, norm: NormGradient) -> None:
    """What the sums over all pixels come to: float64 (2, C), of d and of d (z - mean), masked."""
    count, height, width, _ = of.values.shape
    native("finish_gradient", of.values.dtype)(of.native(), sums.data_ptr(), count * height * width, norm.native())
