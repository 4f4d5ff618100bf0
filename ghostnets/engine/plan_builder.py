"""Add single layers to a plan, with weights in the channel order of its maps; reject unsupported options."""

from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from ghostnets.engine.plan import Array, Layout, Plan
from ghostnets.errors import EngineError
from ghostnets.layers import DFCGate, GhostModule

__all__ = ["IMAGES", "PlanBuilder", "layers_of", "raise_unsupported"]

IMAGES = -1  # map index of the input images
STOCHASTIC_DEPTH = ("torchvision.ops.stochastic_depth", "StochasticDepth")  # by name: torchvision is slow to import


def raise_unsupported(path: str, module: nn.Module) -> NoReturn:
    """Raise the error for a module that the engine does not support."""
    raise EngineError(
        f"the engine has no node for {path or 'the network'} ({type(module).__name__}: {module.extra_repr() or '...'});"
        " it compiles the networks of this package as they are built: run this one in torch."
    )


def _is_no_op(module: nn.Module) -> bool:
    """Return whether a module is an identity in evaluation mode."""
    kind = type(module)
    return isinstance(module, nn.Identity | nn.Dropout) or (kind.__module__, kind.__name__) == STOCHASTIC_DEPTH


def layers_of(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of nested Sequentials in order, with their paths and without identities."""
    if type(module) is nn.Sequential:
        return [layer for name, child in module.named_children() for layer in layers_of(f"{path}.{name}", child)]
    return [] if _is_no_op(module) else [(path, module)]


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float32).numpy()
    return array


def _bias(layer: nn.Conv2d | nn.Linear) -> Array:
    return np.zeros(len(layer.weight), np.float32) if layer.bias is None else _array(layer.bias)


class PlanBuilder:
    """Adds nodes to a plan. Methods take the index of a map and return that of their output.

    Args:
        plan: Plan that nodes are appended to.
        ratio: s of the Ghost modules; maps that are added to one another share a layout.
    """

    def __init__(self, plan: Plan, *, ratio: int) -> None:
        self.plan, self.ratio = plan, ratio

    def layout(self, channels: int) -> Layout:
        """Return the layout of maps between Ghost modules."""
        return Layout(channels, self.ratio)

    def conv(
        self, path: str, conv: nn.Module, x: int, to: Layout, *, relu: bool = False, rows: slice | None = None
    ) -> int:
        """Add a convolution with "same" padding, or a linear layer on pooled maps.

        Args:
            path: Name of the layer in the network.
            conv: Layer, whose groups are the segments of ``x`` and of ``to``.
            x: Input map.
            to: Layout of the output.
            relu: Whether ReLU follows.
            rows: Output channels that are computed; all by default.
        """
        if type(conv) is nn.Linear:
            weight, bias, stride, dilation, groups = _array(conv.weight)[:, :, None, None], _bias(conv), 1, 1, 1
        else:
            layer = self.check(path, conv)
            weight, bias, groups = _array(layer.weight), _bias(layer), layer.groups
            stride, dilation = layer.stride[0], layer.dilation[0]
            if layer.dilation[0] != layer.dilation[1] or layer.kernel_size[0] != layer.kernel_size[1]:
                raise_unsupported(path, conv)
        weight, bias = (weight, bias) if rows is None else (weight[rows], bias[rows])
        return self.gemm(path, weight, bias, x, to, relu=relu, stride=stride, dilation=dilation, groups=groups)

    def gemm(
        self, path: str, weight: Array, bias: Array, x: int, to: Layout, *, relu: bool = False, **fields: int
    ) -> int:
        """Add a convolution from its weight (C_out, C_in, k, k) and bias (C_out,)."""
        weight, y = to.arrange(weight, 0), self.plan.new_map(to)
        tensors = {"weight": weight, "bias": to.arrange(bias, 0)}
        activation = "relu" if relu else "none"
        if x == IMAGES:
            if fields["groups"] != 1 or fields["dilation"] != 1:
                raise EngineError(f"{path} has groups or dilation, which the engine does not support on images.")
            self.plan.add(
                "stem",
                path,
                input=self.plan.new_map(Layout(weight.shape[1])),
                output=y,
                stride=fields["stride"],
                activation=activation,
                tensors=tensors,
            )
            return y
        if fields.get("groups", 1) == 1:
            tensors["weight"] = self.columns(x, weight)
        dilation = fields.pop("dilation", 1)
        self.plan.add(
            "conv",
            path,
            input=x,
            output=y,
            activation=activation,
            dilation_h=dilation,
            dilation_w=dilation,
            **fields,
            tensors=tensors,
        )
        return y

    def linear(self, path: str, layer: nn.Module, x: int, *, relu: bool) -> int:
        """Add a linear layer, or an equivalent 1x1 convolution, on pooled maps."""
        linear: Any = layer
        if type(layer) is not nn.Linear:
            linear = self.check(path, layer, kernel=1, stride=1, groups=1)
        outputs = len(linear.weight)
        y = self.plan.new_map(Layout(outputs))
        tensors = {"weight": self.columns(x, _array(linear.weight).reshape(outputs, -1)), "bias": _bias(linear)}
        self.plan.add("linear", path, input=x, output=y, activation="relu" if relu else "none", tensors=tensors)
        return y

    def depthwise(self, path: str, conv: nn.Module, x: int, *, activation: str = "none") -> int:
        """Add a depthwise convolution."""
        layout = self.plan.layouts[x]
        convolution = self.check(path, conv, groups=layout.out_channels)
        weight = layout.arrange(_array(convolution.weight[:, 0]), 0)
        tensors = {
            "weight": weight.reshape(layout.segments, layout.channels, *weight.shape[1:]),
            "bias": layout.arrange(_bias(convolution), 0).reshape(layout.segments, layout.channels),
        }
        y = self.plan.new_map(layout)
        dilation_h, dilation_w = convolution.dilation
        self.plan.add(
            "depthwise",
            path,
            input=x,
            output=y,
            stride=convolution.stride[0],
            dilation_h=dilation_h,
            dilation_w=dilation_w,
            activation=activation,
            tensors=tensors,
        )
        return y

    def ghost(self, path: str, ghost: nn.Module, x: int, *, residual: int | None = None) -> int:
        """Add a Ghost module, and a residual to its output; without ghosts, a plain convolution."""
        if type(ghost) is not GhostModule:
            raise_unsupported(path, ghost)
        primary, relu = self.convolution(f"{path}.primary_conv", ghost.primary_conv)
        layout = self.layout(ghost.out_channels)
        if not ghost.has_ghosts and (layout.segments > 1 or x == IMAGES) and ghost.short_conv is None:
            return self.add(path, self.conv(f"{path}.primary_conv.0", primary, x, layout, relu=relu), residual)
        gate = None if ghost.short_conv is None else self.gate(f"{path}.short_conv", ghost.short_conv, x)
        self.check(f"{path}.primary_conv.0", primary, groups=1)
        weight = _array(primary.weight)
        tensors = {"weight": weight if x == IMAGES else self.columns(x, weight), "bias": _bias(primary)}
        fields = {"stride": primary.stride[0], "primary_dilation": primary.dilation[0]}
        if ghost.has_ghosts:
            cheap, cheap_relu = self.convolution(f"{path}.cheap_operation", ghost.cheap_operation)
            self.check(f"{path}.cheap_operation.0", cheap, stride=1, groups=layout.channels)
            if cheap_relu != relu:
                raise_unsupported(f"{path}.cheap_operation", ghost.cheap_operation)
            fields |= {"dilation_h": cheap.dilation[0], "dilation_w": cheap.dilation[0]}
            tensors |= self.cheap(layout, cheap)
        y = self.plan.new_map(layout)
        fields |= {name: m for name, m in (("residual", residual), ("gate", gate)) if m is not None}
        if x == IMAGES:
            if residual is not None or gate is not None or primary.dilation[0] != 1:
                raise_unsupported(path, ghost)
            x, kind = self.plan.new_map(Layout(ghost.in_channels)), "stem"
        else:
            kind = "ghost"
        activation = "relu" if relu else "none"
        self.plan.add(kind, path, input=x, output=y, activation=activation, **fields, tensors=tensors)
        return y

    def cheap(self, layout: Layout, cheap: nn.Conv2d) -> dict[str, Array]:
        """Return weights (s - 1, m, d, d) and biases (s - 1, m) of the cheap operations; surplus ones are zero."""
        shape = (layout.channels, layout.segments - 1)
        weight = _array(cheap.weight).reshape(*shape, *cheap.kernel_size).swapaxes(0, 1).copy()
        bias = _bias(cheap).reshape(shape).T.copy()
        is_surplus = layout.order[1:] < 0
        weight[is_surplus], bias[is_surplus] = 0, 0
        return {"second_weight": weight, "second_bias": bias}

    def gate(self, path: str, gate: DFCGate, x: int) -> int:
        """Add a DFC gate at half resolution: a convolution, two depthwise ones, sigmoid. Its consumer upsamples it."""
        if type(gate) is not DFCGate:
            raise_unsupported(path, gate)
        pooled = self.plan.new_map(self.plan.layouts[x])
        self.plan.add("average", path, input=x, output=pooled)
        layers: list[Any] = list(gate)
        for index in (1, 3, 5):
            self.skip(f"{path}.{index}", layers[index])
        y = self.conv(f"{path}.0", layers[0], pooled, self.layout(layers[0].out_channels))
        y = self.depthwise(f"{path}.2", layers[2], y)
        return self.depthwise(f"{path}.4", layers[4], y, activation="sigmoid")

    def squeeze_excite(self, path: str, first: nn.Module, second: nn.Module, x: int, *, gate: str) -> int:
        """Add squeeze-and-excitation: ``x`` times the gate that two layers compute from its means."""
        layout = self.plan.layouts[x]
        for layer in (first, second):
            if type(layer) is not nn.Linear:
                self.check(path, layer, kernel=1, stride=1, groups=1)
        reduce: Any = first
        expand: Any = second
        tensors = {
            "weight": self.columns(x, _array(reduce.weight).reshape(len(reduce.weight), -1)),
            "bias": _bias(reduce),
            "second_weight": layout.arrange(_array(expand.weight).reshape(len(expand.weight), -1), 0),
            "second_bias": layout.arrange(_bias(expand), 0),
        }
        y = self.plan.new_map(layout)
        self.plan.add("squeeze_excite", path, input=x, output=y, activation=gate, tensors=tensors)
        return y

    def mix(self, path: str, first: nn.Conv2d, second: nn.Conv2d, x: int, pooled: list[int]) -> int:
        """Add the mix of G-Ghost: ReLU of ``x`` plus the output of two layers on the means of other maps."""
        for layer in (first, second):
            self.check(path, layer, kernel=1, stride=1, groups=1)
        weight, layout = _array(first.weight)[:, :, 0, 0], self.plan.layouts[x]
        starts = np.cumsum([0, *(self.plan.layouts[m].out_channels for m in pooled)])
        columns = [
            self.padded(m, weight[:, start:end]) for m, start, end in zip(pooled, starts, starts[1:], strict=False)
        ]
        tensors = {
            "weight": np.concatenate(columns, 1),
            "bias": _bias(first),
            "second_weight": layout.arrange(_array(second.weight)[:, :, 0, 0], 0),
            "second_bias": layout.arrange(_bias(second), 0),
        }
        y = self.plan.new_map(layout)
        self.plan.add("mix", path, input=x, output=y, pooled=pooled, activation="relu", tensors=tensors)
        return y

    def add(self, path: str, x: int, residual: int | None, *, relu: bool = False) -> int:
        """Add the sum of two maps; return ``x`` if there is no residual."""
        if residual is None:
            return x
        y = self.plan.new_map(self.plan.layouts[x])
        activation = "relu" if relu else "none"
        self.plan.add("add", path, input=x, residual=residual, output=y, activation=activation)
        return y

    def max_pool(self, path: str, pool: nn.MaxPool2d, x: int, *, pad_end: int | None = None) -> int:
        """Add max pooling in square windows; ``pad_end``, below and to the right, is the pool's padding by default."""
        fields: Any = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        kernel, stride, pad, dilation = fields
        halves_up = (kernel, stride, pad, dilation) == (2, 2, 0, 1)
        if any(type(field) is not int for field in fields) or pool.return_indices or (pool.ceil_mode and not halves_up):
            raise_unsupported(path, pool)
        if pad_end is None:
            pad_end = 1 if pool.ceil_mode else pad
        y = self.plan.new_map(self.plan.layouts[x])
        self.plan.add(
            "max_pool",
            path,
            input=x,
            output=y,
            kernel=kernel,
            stride=stride,
            pad=pad,
            pad_end=pad_end,
            dilation_h=dilation,
        )
        return y

    def pool(self, path: str, x: int) -> int:
        """Add the mean over all pixels."""
        y = self.plan.new_map(self.plan.layouts[x])
        self.plan.add("pool", path, input=x, output=y)
        return y

    def output(self, path: str, x: int) -> None:
        """Make a map an output of the network."""
        self.plan.outputs.append(x)
        self.plan.add("output", path, input=x, output=self.plan.new_map(self.plan.layouts[x]))

    def columns(self, x: int, weight: Array) -> Array:
        """Arrange the columns of a weight (C_out, C_in, ...) as map ``x`` has its channels."""
        return self.plan.layouts[x].arrange(weight, 1)

    def padded(self, x: int, weight: Array) -> Array:
        """Arrange columns as ``columns``, with zeros for the padding of the map's segments as well."""
        layout = self.plan.layouts[x]
        arranged = self.columns(x, weight).reshape(len(weight), layout.segments, layout.channels)
        return np.pad(arranged, ((0, 0), (0, 0), (0, -layout.channels % 8))).reshape(len(weight), -1)

    def convolution(self, path: str, layers: nn.Sequential) -> tuple[Any, bool]:
        """Return the convolution of a folded Sequential, and whether ReLU follows."""
        (_, convolution), *rest = layers_of(path, layers)
        for name, layer in rest:
            if type(layer) is not nn.ReLU or len(rest) > 1:
                raise_unsupported(name, layer)
        return convolution, len(rest) == 1

    def check(self, path: str, conv: nn.Module, **expected: int) -> nn.Conv2d:
        """Return the convolution if it has "same" padding and these properties; raise EngineError otherwise."""
        if type(conv) is not nn.Conv2d:
            raise_unsupported(path, conv)
        found = {"kernel": max(conv.kernel_size), "stride": conv.stride[0], "groups": conv.groups}
        same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        if (
            any(found[name] != value for name, value in expected.items())
            or conv.padding != same
            or conv.padding_mode != "zeros"
            or conv.stride[0] != conv.stride[1]
            or any(k % 2 == 0 for k in conv.kernel_size)
        ):
            raise_unsupported(path, conv)
        return conv

    def skip(self, path: str, module: nn.Module) -> None:
        """Check that a module is an identity in evaluation mode."""
        if not _is_no_op(module):
            raise_unsupported(path, module)
