"""Maps as the native training kernels read them, and the calls of these kernels.

The native module receives addresses, not tensors, so that it is built without torch; each ``native`` method below makes
the struct of ``csrc/training/kernels.hpp`` that has the same name or, for ``Map``, that of a ``MapView``. A struct is
valid while the tensors of the object that made it live.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.native import TRAINING, import_native

__all__ = [
    "ConvNorm",
    "Gradient",
    "Map",
    "NormGradient",
    "Target",
    "convolve",
    "convolve_backward",
    "filter_gradient",
    "finish_gradient",
    "image_sums",
    "join",
    "native_module",
    "norm_gradient",
]


@cache
def native_module(dtype: torch.dtype) -> Any:
    """Return the structs and kernels for float32 or float64."""
    module = import_native(TRAINING)
    return module.f64 if dtype == torch.float64 else module.f32


def _address(tensor: Tensor | None, channel: int = 0) -> int:
    """Return the address of a tensor from ``channel`` of its last dimension on; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr() + channel * tensor.element_size()


@dataclass(slots=True)
class ConvNorm:
    """A convolution without bias and its normalisation, with their parameters as autograd passes them."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    weight: Tensor
    gamma: Tensor
    beta: Tensor


@dataclass(slots=True)
class Map:
    """A feature map and how it is read: the raw output of a convolution, or a map that is read unchanged.

    Attributes:
        values: (N, H, W, C), contiguous.
        statistics: (4, C): mean, 1 / deviation, scale, shift; None if values are read as they are.
        relu: Whether ReLU follows the normalisation.
        gate: (N, all channels of the gated map), multiplies what is read; None for no gate.
        gate_from: First channel of the gate that belongs to this map.
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

    def native(self) -> Any:
        return native_module(self.values.dtype).MapView(
            values=self.values.data_ptr(),
            channels=self.channels,
            statistics=_address(self.statistics),
            relu=self.relu,
            gate=_address(self.gate, self.gate_from),
            gate_stride=self.gate_stride,
        )


@dataclass(slots=True)
class NormGradient:
    """The gradients of a normalisation's parameters, and the coefficients of the gradient of its input.

    Attributes:
        gamma: (C,).
        of_gamma: (C,), written by the kernels.
        of_beta: (C,), written by the kernels.
        coefficients: (3, C), written by the kernels: a, b, c of ``csrc/training/kernels.hpp``.
    """

    gamma: Tensor
    of_gamma: Tensor = field(init=False)
    of_beta: Tensor = field(init=False)
    coefficients: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.of_gamma, self.of_beta = torch.empty_like(self.gamma), torch.empty_like(self.gamma)
        self.coefficients = self.gamma.new_empty(3, len(self.gamma))

    def native(self) -> Any:
        return native_module(self.gamma.dtype).NormGradient(
            channels=len(self.gamma),
            gamma=self.gamma.data_ptr(),
            gamma_gradient=self.of_gamma.data_ptr(),
            beta_gradient=self.of_beta.data_ptr(),
            coefficients=self.coefficients.data_ptr(),
        )


@dataclass(slots=True)
class Gradient:
    """The gradient of a raw map, as it is computed from that of the activated map.

    Attributes:
        of: The raw map; its gate multiplies the gradient too.
        values: (N, H, W, any number of channels), gradient of the activated (and gated) map.
        norm: The normalisation, whose sums are known; None before they are.
        first: First channel of ``values`` that belongs to this map.
        offset: (N, all channels of the gated map), added after the gate; None for none.
        coefficients: (3, C), those of ``norm`` by default.
    """

    of: Map
    values: Tensor
    norm: NormGradient | None = None
    first: int = 0
    offset: Tensor | None = None
    coefficients: Tensor | None = None

    def native(self) -> Any:
        coefficients = self.coefficients if self.norm is None else self.norm.coefficients
        return native_module(self.values.dtype).Gradient(
            d=_address(self.values, self.first),
            d_stride=self.values.shape[3],
            map=self.of.native(),
            offset=_address(self.offset, self.of.gate_from),
            coefficients=_address(coefficients),
        )


@dataclass(slots=True)
class Target:
    """The destination of the gradient of an input.

    Attributes:
        values: (N, H, W, C), written.
        add: Added to it, with its gate and offset; may read ``values`` themselves.
        norm: Receives the gradients that follow from the sums; None if they are not needed, or not complete yet.
        image_sums: (2, N, C), receives the masked sums of each image: of d, and of d (z - mean). None if not needed.
    """

    values: Tensor
    add: Gradient | None = None
    norm: NormGradient | None = None
    image_sums: Tensor | None = None

    def native(self) -> Any:
        added: dict[str, int] = {}
        if self.add is not None:
            of = self.add.of
            added = {
                "add": _address(self.add.values, self.add.first),
                "add_stride": self.add.values.shape[3],
                "add_gate": _address(of.gate, of.gate_from),
                "add_offset": _address(self.add.offset, of.gate_from),
                "gate_stride": of.gate_stride,
            }
        return native_module(self.values.dtype).Target(
            out=self.values.data_ptr(),
            norm=None if self.norm is None else self.norm.native(),
            image_sums=_address(self.image_sums),
            **added,
        )


def convolve(inputs: Sequence[Map], layer: ConvNorm, *, relu: bool) -> Map:
    """Run a 1 x 1 or depthwise convolution over concatenated maps, and update running statistics as in training."""
    conv, norm = layer.conv, layer.norm
    count, height, width, _ = inputs[0].values.shape
    stride, channels = conv.stride[0], conv.out_channels
    out = layer.weight.new_empty(count, -(-height // stride), -(-width // stride), channels)
    statistics = layer.weight.new_empty(4, channels)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    native = native_module(out.dtype)
    common = {
        "threads": torch.get_num_threads(),
        "inputs": [m.native() for m in inputs],
        "weight": layer.weight.data_ptr(),
        "out": out.data_ptr(),
        "norm": native.Norm(
            gamma=layer.gamma.data_ptr(),
            beta=layer.beta.data_ptr(),
            running_mean=_address(norm.running_mean),
            running_var=_address(norm.running_var),
            momentum=norm.momentum,
            eps=norm.eps,
            statistics=statistics.data_ptr(),
        ),
    }
    if conv.groups == 1:
        pixels = height * width
        native.pointwise_forward(pixels=count * pixels, image_pixels=pixels, out_channels=channels, **common)
    else:
        kernel = conv.kernel_size[0]
        native.depthwise_forward(images=count, height=height, width=width, kernel=kernel, stride=stride, **common)
    return Map(out, statistics, relu)


def convolve_backward(
    gradient: Gradient, inputs: Sequence[Map], layer: ConvNorm, targets: Sequence[Target]
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the gradients of the inputs to the targets and return those of weight, gamma and beta."""
    assert gradient.norm is not None
    conv, weight = layer.conv, layer.weight
    of_weight = torch.empty_like(weight)
    count, height, width, _ = inputs[0].values.shape
    native = native_module(weight.dtype)
    common = {
        "threads": torch.get_num_threads(),
        "inputs": [m.native() for m in inputs],
        "weight": weight.data_ptr(),
        "gradient": gradient.native(),
        "targets": [t.native() for t in targets],
        "weight_gradient": of_weight.data_ptr(),
    }
    if conv.groups == 1:
        pixels = height * width
        native.pointwise_backward(pixels=count * pixels, image_pixels=pixels, **common)
    else:
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        native.depthwise_backward(images=count, height=height, width=width, kernel=kernel, stride=stride, **common)
    return of_weight, gradient.norm.of_gamma, gradient.norm.of_beta


def filter_gradient(x: Tensor, d: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the gradient of a depthwise convolution's weight: (C, K K) from x (N, H, W, C) and d (N, H', W', C)."""
    count, height, width, channels = x.shape
    coefficients = torch.zeros(3, channels, dtype=d.dtype)
    coefficients[0] = 1  # d is the gradient of the raw map already
    gradient = Gradient(Map(d), d, coefficients=coefficients)
    out = x.new_empty(channels, kernel_size**2)
    native = native_module(x.dtype)
    native.depthwise_backward(
        threads=torch.get_num_threads(),
        images=count,
        height=height,
        width=width,
        kernel=kernel_size,
        stride=stride,
        inputs=[Map(x).native()],
        weight=0,
        gradient=gradient.native(),
        targets=[native.Target()],
        weight_gradient=out.data_ptr(),
    )
    return out


def join(maps: Sequence[Map], residual: Map | None) -> Tensor:
    """Return the concatenation of the activated maps plus the residual: (N, H, W, C)."""
    count, height, width, _ = maps[0].values.shape
    out = maps[0].values.new_empty(count, height, width, sum(m.channels for m in maps))
    native_module(out.dtype).join(
        threads=torch.get_num_threads(),
        pixels=count * height * width,
        inputs=[m.native() for m in maps],
        residual=None if residual is None else residual.native(),
        out=out.data_ptr(),
    )
    return out


def norm_gradient(of: Map, values: Tensor, gamma: Tensor, *, first: int = 0) -> Gradient:
    """Return the gradient of a raw map from that of the activated map, with its sums computed here."""
    norm = NormGradient(gamma)
    gradient = Gradient(of, values, norm, first)
    pixels = values.shape[0] * values.shape[1] * values.shape[2]
    native_module(values.dtype).sums(
        threads=torch.get_num_threads(), pixels=pixels, gradient=gradient.native(), norm=norm.native()
    )
    return gradient


def image_sums(of: Map) -> Tensor:
    """Return for each image the number of pixels that pass the ReLU, and the sum of z - mean over them: (2, N, C)."""
    count, height, width, channels = of.values.shape
    out, pixels = of.values.new_empty(2, count, channels), height * width
    native_module(out.dtype).image_sums(
        threads=torch.get_num_threads(),
        pixels=count * pixels,
        image_pixels=pixels,
        map=of.native(),
        out=out.data_ptr(),
    )
    return out


def finish_gradient(of: Map, sums: Tensor, norm: NormGradient) -> None:
    """Compute a normalisation's gradients from sums over all pixels: float64 (2, C), masked d and d (z - mean)."""
    count, height, width, _ = of.values.shape
    native_module(of.values.dtype).finish_gradient(
        map=of.native(), sums=sums.data_ptr(), count=count * height * width, norm=norm.native()
    )
