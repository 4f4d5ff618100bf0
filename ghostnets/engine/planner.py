"""From a network to a plan: what each module becomes.

Normalisation is folded and the branches of GhostNetV3 are merged first (``compress.fuse``). A module is recognised by
its exact class: one that this file does not know is an error that names it, never a guess.
"""

from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ghostnets.compress import fuse
from ghostnets.engine.plan import Array, Layout, Plan
from ghostnets.errors import EngineError
from ghostnets.layers import ConvBnAct, DFCGate, GhostBottleneck, GhostModule, SqueezeExcite
from ghostnets.models import GhostNet, GhostNetV2, GhostNetV3

__all__ = ["make_plan"]

NETWORKS = (GhostNet, GhostNetV2, GhostNetV3)


def make_plan(model: nn.Module, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Plan:
    """The plan of a network in evaluation mode; the network is left alone.

    Args:
        model: A GhostNet, GhostNetV2 or GhostNetV3 of any width and ratio.
        mean: Of pixels in [0, 1], one value a channel, if uint8 images are to be taken.
        std: As ``mean``.

    Raises:
        EngineError: A module has no counterpart in the engine; its path and class are named.
    """
    if type(model) not in NETWORKS:
        _unknown("", model)
    network: Any = fuse(model)
    plan = Plan(network.conv_stem.in_channels, 0, mean=mean, std=std)
    _Planner(plan, ratio=_common_ratio(network)).network(network)
    return plan


def _common_ratio(network: nn.Module) -> int:
    """The ratio of all Ghost modules: maps that are added to one another must be laid out alike."""
    ratios = {module.ratio for module in network.modules() if isinstance(module, GhostModule)}
    if len(ratios) > 1:
        raise EngineError(
            f"the Ghost modules of this network have different ratios ({sorted(ratios)}), the engine takes one for all;"
            " run the network in torch."
        )
    return ratios.pop() if ratios else 1


def _unknown(path: str, module: nn.Module) -> NoReturn:
    raise EngineError(
        f"the engine has no node for {path or 'the network'} ({type(module).__name__}: {module.extra_repr() or '...'});"
        " it compiles GhostNet, GhostNetV2 and GhostNetV3 as this package builds them: run this one in torch."
    )


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float32).numpy()
    return array


def _bias(layer: nn.Conv2d | nn.Linear) -> Array:
    return np.zeros(len(layer.weight), np.float32) if layer.bias is None else _array(layer.bias)


class _Planner:
    def __init__(self, plan: Plan, *, ratio: int) -> None:
        self.plan, self.ratio = plan, ratio

    def network(self, network: Any) -> None:
        x = self.stem("conv_stem", network.conv_stem, relu=self.is_relu("act1", network.act1))
        self.skipped("bn1", network.bn1)
        for s, stage in enumerate(network.blocks):
            for b, block in enumerate(stage):
                path = f"blocks.{s}.{b}"
                if type(block) is GhostBottleneck:
                    x = self.bottleneck(path, block, x)
                elif type(block) is ConvBnAct:
                    self.skipped(f"{path}.bn1", block.bn1)
                    wide = Layout(block.conv.out_channels)
                    x = self.pointwise(f"{path}.conv", block.conv, x, wide, relu=self.is_relu(path, block.act1))
                else:
                    _unknown(path, block)
        pooled = self.plan.new_map(self.plan.layouts[x])
        self.plan.add("pool", input=x, output=pooled)
        if type(network.global_pool) is not nn.AdaptiveAvgPool2d or network.global_pool.output_size not in (1, (1, 1)):
            _unknown("global_pool", network.global_pool)
        x = self.linear("conv_head", network.conv_head, pooled, relu=self.is_relu("act2", network.act2))
        if type(network.classifier) is not nn.Identity:
            x = self.linear("classifier", network.classifier, x, relu=False)
        self.plan.num_outputs = self.plan.layouts[x].out_channels

    def bottleneck(self, path: str, block: GhostBottleneck, x: int) -> int:
        self.skipped(f"{path}.bn_dw", block.bn_dw)
        self.skipped(f"{path}.drop_path", block.drop_path)
        residual = self.shortcut(f"{path}.shortcut", block.shortcut, x, self.layout(block.ghost2.out_channels))
        x = self.ghost(f"{path}.ghost1", block.ghost1, x)
        if type(block.conv_dw) is not nn.Identity:
            x = self.depthwise(f"{path}.conv_dw", block.conv_dw, x)
        if type(block.se) is SqueezeExcite:
            x = self.squeeze_excite(f"{path}.se", block.se, x)
        else:
            self.skipped(f"{path}.se", block.se)
        return self.ghost(f"{path}.ghost2", block.ghost2, x, residual=residual)

    def shortcut(self, path: str, shortcut: nn.Sequential, x: int, to: Layout) -> int:
        layers = [(f"{path}.{name}", layer) for name, layer in shortcut.named_children()]
        layers = [(where, layer) for where, layer in layers if type(layer) is not nn.Identity]
        if not layers:
            return x
        if len(layers) != 2:
            _unknown(path, shortcut)
        x = self.depthwise(*layers[0], x)
        return self.pointwise(*layers[1], x, to, relu=False)

    def ghost(self, path: str, ghost: GhostModule, x: int, *, residual: int | None = None) -> int:
        if type(ghost) is not GhostModule:
            _unknown(path, ghost)
        gate = None if ghost.short_conv is None else self.gate(f"{path}.short_conv", ghost.short_conv, x)
        primary, relu = self.convolution(f"{path}.primary_conv", ghost.primary_conv)
        layout = self.layout(ghost.out_channels)
        self.check(f"{path}.primary_conv.0", primary, kernel=1, stride=1, groups=1)
        tensors = {"weight": self.columns(x, _array(primary.weight[:, :, 0, 0])), "bias": _bias(primary)}
        dilation = 1
        if ghost.has_ghosts:
            cheap, cheap_relu = self.convolution(f"{path}.cheap_operation", ghost.cheap_operation)
            self.check(f"{path}.cheap_operation.0", cheap, stride=1, groups=layout.channels)
            if cheap_relu != relu:
                _unknown(f"{path}.cheap_operation", ghost.cheap_operation)
            dilation = cheap.dilation[0]
            tensors |= self.cheap(layout, cheap)
        y = self.plan.new_map(layout)
        inputs = {name: m for name, m in (("residual", residual), ("gate", gate)) if m is not None}
        activation = "relu" if relu else "none"
        dilations = {"dilation_h": dilation, "dilation_w": dilation}
        self.plan.add("ghost", input=x, output=y, **inputs, activation=activation, **dilations, tensors=tensors)
        return y

    def cheap(self, layout: Layout, cheap: nn.Conv2d) -> dict[str, Array]:
        """Weights (s - 1, m, d, d) and biases (s - 1, m) of the cheap operations; the surplus ones are zero."""
        shape = (layout.channels, layout.segments - 1)
        weight = _array(cheap.weight).reshape(*shape, *cheap.kernel_size).swapaxes(0, 1).copy()
        bias = _bias(cheap).reshape(shape).T.copy()
        is_surplus = layout.order[1:] < 0
        weight[is_surplus], bias[is_surplus] = 0, 0
        return {"second_weight": weight, "second_bias": bias}

    def gate(self, path: str, gate: DFCGate, x: int) -> int:
        """Half the resolution, a pointwise and two depthwise convolutions, sigmoid; enlarged where it is used."""
        if type(gate) is not DFCGate:
            _unknown(path, gate)
        pooled = self.plan.new_map(self.plan.layouts[x])
        self.plan.add("average", input=x, output=pooled)
        layers: list[Any] = list(gate)
        for index in (1, 3, 5):
            self.skipped(f"{path}.{index}", layers[index])
        layout = self.layout(layers[0].out_channels)
        y = self.pointwise(f"{path}.0", layers[0], pooled, layout, relu=False)
        y = self.depthwise(f"{path}.2", layers[2], y)
        return self.depthwise(f"{path}.4", layers[4], y, activation="sigmoid")

    def stem(self, path: str, conv: nn.Module, *, relu: bool) -> int:
        convolution = self.check(path, conv, groups=1)
        layout = self.layout(convolution.out_channels)
        x, y = self.plan.new_map(Layout(convolution.in_channels)), self.plan.new_map(layout)
        tensors = {"weight": layout.arrange(_array(convolution.weight), 0), "bias": self.rows(layout, convolution)}
        activation = "relu" if relu else "none"
        stride = convolution.stride[0]
        self.plan.add("stem", input=x, output=y, stride=stride, activation=activation, tensors=tensors)
        return y

    def pointwise(self, path: str, conv: nn.Module, x: int, to: Layout, *, relu: bool) -> int:
        convolution = self.check(path, conv, kernel=1, stride=1, groups=1)
        y = self.plan.new_map(to)
        weight = to.arrange(self.columns(x, _array(convolution.weight[:, :, 0, 0])), 0)
        tensors = {"weight": weight, "bias": self.rows(to, convolution)}
        self.plan.add("pointwise", input=x, output=y, activation="relu" if relu else "none", tensors=tensors)
        return y

    def linear(self, path: str, layer: nn.Module, x: int, *, relu: bool) -> int:
        linear: Any = layer
        if type(layer) is not nn.Linear:
            linear = self.check(path, layer, kernel=1, stride=1, groups=1)
        outputs = len(linear.weight)
        y = self.plan.new_map(Layout(outputs))
        tensors = {"weight": self.columns(x, _array(linear.weight).reshape(outputs, -1)), "bias": _bias(linear)}
        self.plan.add("linear", input=x, output=y, activation="relu" if relu else "none", tensors=tensors)
        return y

    def depthwise(self, path: str, conv: nn.Module, x: int, *, activation: str = "none") -> int:
        layout = self.plan.layouts[x]
        convolution = self.check(path, conv, groups=layout.out_channels)
        weight = layout.arrange(_array(convolution.weight[:, 0]), 0)
        tensors = {
            "weight": weight.reshape(layout.segments, layout.channels, *weight.shape[1:]),
            "bias": self.rows(layout, convolution).reshape(layout.segments, layout.channels),
        }
        y = self.plan.new_map(layout)
        dilation_h, dilation_w = convolution.dilation
        self.plan.add(
            "depthwise",
            input=x,
            output=y,
            stride=convolution.stride[0],
            dilation_h=dilation_h,
            dilation_w=dilation_w,
            activation=activation,
            tensors=tensors,
        )
        return y

    def squeeze_excite(self, path: str, se: SqueezeExcite, x: int) -> int:
        reduce = self.check(f"{path}.conv_reduce", se.conv_reduce, kernel=1, stride=1, groups=1)
        expand = self.check(f"{path}.conv_expand", se.conv_expand, kernel=1, stride=1, groups=1)
        if not self.is_relu(f"{path}.act1", se.act1):
            _unknown(f"{path}.act1", se.act1)
        layout = self.plan.layouts[x]
        tensors = {
            "weight": self.columns(x, _array(reduce.weight[:, :, 0, 0])),
            "bias": _bias(reduce),
            "second_weight": layout.arrange(_array(expand.weight[:, :, 0, 0]), 0),
            "second_bias": self.rows(layout, expand),
        }
        y = self.plan.new_map(layout)
        self.plan.add("squeeze_excite", input=x, output=y, activation="hard_sigmoid", tensors=tensors)
        return y

    def layout(self, channels: int) -> Layout:
        return Layout(channels, self.ratio)

    def columns(self, x: int, weight: Array) -> Array:
        """(C_out, C_in) with the columns where map ``x`` has its channels."""
        return self.plan.layouts[x].arrange(weight, 1)

    def rows(self, layout: Layout, conv: nn.Conv2d) -> Array:
        """The bias, where ``layout`` has its channels."""
        return layout.arrange(_bias(conv), 0)

    def convolution(self, path: str, layers: nn.Sequential) -> tuple[Any, bool]:
        """The convolution of a folded Sequential, and whether ReLU follows."""
        rest = [(name, layer) for name, layer in layers.named_children() if type(layer) is not nn.Identity]
        for name, layer in rest[1:]:
            if type(layer) is not nn.ReLU or len(rest) > 2:
                _unknown(f"{path}.{name}", layer)
        return rest[0][1], len(rest) == 2

    def check(self, path: str, conv: nn.Module, **wanted: int) -> nn.Conv2d:
        """The convolution, if it is one that keeps its size but for the stride, with these properties."""
        if type(conv) is not nn.Conv2d:
            _unknown(path, conv)
        found = {"kernel": max(conv.kernel_size), "stride": conv.stride[0], "groups": conv.groups}
        same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        if (
            any(found[name] != value for name, value in wanted.items())
            or conv.padding != same
            or conv.padding_mode != "zeros"
            or conv.stride[0] != conv.stride[1]
            or any(k % 2 == 0 for k in conv.kernel_size)
        ):
            _unknown(path, conv)
        return conv

    def is_relu(self, path: str, module: nn.Module) -> bool:
        if type(module) is nn.ReLU:
            return True
        self.skipped(path, module)
        return False

    def skipped(self, path: str, module: nn.Module) -> None:
        """What does nothing in evaluation mode."""
        if type(module) not in (nn.Identity, nn.Dropout, StochasticDepth):
            _unknown(path, module)
