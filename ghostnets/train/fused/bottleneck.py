"""Ghost bottlenecks as one autograd function, for training on a CPU.

A bottleneck of separate layers passes over its widest maps some twenty times: convolution, statistics, normalisation,
ReLU and concatenation each read and write them, forward and backward. Here a convolution writes its raw output once and
accumulates its statistics on the way; its readers normalise. ``docs/training_speed.md`` has the measurements.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghostnets.layers import GhostBottleneck, SqueezeExcite
from ghostnets.train.fused.gate import Gate
from ghostnets.train.fused.kernels import (
    ConvNorm,
    Gradient,
    Map,
    NormGradient,
    Target,
    convolve,
    convolve_backward,
    join,
    norm_gradient,
)
from ghostnets.train.fused.support import has_hooks, is_supported_call, is_supported_norm

__all__ = ["forward", "is_supported"]


def forward(module: nn.Module, x: Tensor, /) -> Tensor | None:
    """Return the output of a ``GhostBottleneck``, (N, C, H, W), channels last in memory; None if unsupported."""
    assert isinstance(module, GhostBottleneck)
    if not is_supported(module, x):
        return None
    pairs = _pairs(module)
    parameters = [p for conv, norm in pairs.values() for p in (conv.weight, norm.weight, norm.bias)]
    se: Any = module.se
    gate = [] if type(se) is nn.Identity else [*se.conv_reduce.parameters(), *se.conv_expand.parameters()]
    out: Tensor = _Bottleneck.apply(x, pairs, len(gate) > 0, *parameters, *gate)
    return out


def is_supported(module: GhostBottleneck, x: Tensor) -> bool:
    """Return whether the kernels compute this module for this input."""
    if not is_supported_call(module, x):
        return False
    ghosts = (module.ghost1, module.ghost2)
    if any(g.has_surplus or g.ratio != 2 or g.short_conv is not None for g in ghosts):
        return False
    if type(module.drop_path) is not nn.Identity or has_hooks(module) or not _has_own_activations(module):
        return False
    pairs = _pairs(module)
    if not all(_is_supported_layer(conv, norm, x.dtype) for conv, norm in pairs.values()):
        return False
    stride = pairs["conv_dw"][0].stride[0] if "conv_dw" in pairs else 1
    pixels = x.shape[0] * -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
    return x.shape[1] == module.ghost1.in_channels and pixels > 1  # else the regular layers raise their errors


def _has_own_activations(module: GhostBottleneck) -> bool:
    """Return whether the activations are those that a bottleneck is built with; a network may replace them."""
    first, second = (
        {type(half[-1]) for half in (ghost.primary_conv, ghost.cheap_operation)}
        for ghost in (module.ghost1, module.ghost2)
    )
    se = module.se
    is_known_gate = type(se) is nn.Identity or (type(se) is SqueezeExcite and type(se.act1) is nn.ReLU)
    return first == {nn.ReLU} and second == {nn.Identity} and is_known_gate


def _pairs(module: GhostBottleneck) -> dict[str, tuple[Any, Any]]:
    """Return each convolution of a bottleneck with its normalisation, by role."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for number, ghost in (("1", module.ghost1), ("2", module.ghost2)):
        for name, half in (("primary", ghost.primary_conv), ("cheap", ghost.cheap_operation)):
            conv, norm, *_ = half
            pairs[name + number] = (conv, norm)
    if type(module.conv_dw) is not nn.Identity:
        pairs["conv_dw"] = (module.conv_dw, module.bn_dw)
    if len(module.shortcut):
        conv1, norm1, conv2, norm2 = module.shortcut
        pairs["shortcut1"], pairs["shortcut2"] = (conv1, norm1), (conv2, norm2)
    return pairs


def _is_supported_layer(conv: nn.Module, norm: nn.Module, dtype: torch.dtype) -> bool:
    """Return whether the kernels support a convolution and its normalisation."""
    if type(conv) is not nn.Conv2d or conv.bias is not None or not is_supported_norm(norm, dtype):
        return False
    size, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups == 1:
        fits = size == 1 and stride == 1
    else:
        fits = size in (3, 5) and stride in (1, 2) and conv.groups == conv.in_channels == conv.out_channels
    fits = fits and conv.kernel_size[1] == size and conv.stride[1] == stride
    fits = fits and conv.padding == (size // 2, size // 2) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return fits and conv.weight.dtype == dtype and conv.weight.is_contiguous()


def _layers(pairs: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, ConvNorm]:
    """Return the layers by role, with the parameters of this call, three for each."""
    return {name: ConvNorm(*pair, *parameters[3 * i : 3 * i + 3]) for i, (name, pair) in enumerate(pairs.items())}


def _hidden(layers: dict[str, Any]) -> list[str]:
    """Return the roles of the maps that the second Ghost module reads."""
    return ["conv_dw"] if "conv_dw" in layers else ["primary1", "cheap1"]


class _Bottleneck(torch.autograd.Function):
    """x (N, C, H, W), the pairs of layers, whether there is a gate, and all parameters -> (N, C', H', W')."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: dict[str, Any], has_gate: bool, *parameters: Tensor) -> Tensor:
        layers = _layers(pairs, parameters)
        inputs = Map(x.detach().permute(0, 2, 3, 1).contiguous())
        primary = convolve([inputs], layers["primary1"], relu=True)
        maps = {"primary1": primary, "cheap1": convolve([primary], layers["cheap1"], relu=True)}
        if "conv_dw" in layers:
            maps["conv_dw"] = convolve([maps["primary1"], maps["cheap1"]], layers["conv_dw"], relu=False)
        hidden = [maps[name] for name in _hidden(layers)]
        ctx.gate = None
        if has_gate:
            ctx.gate = Gate.of(hidden, [layers[name].beta for name in _hidden(layers)], parameters[-4:])
            hidden = ctx.gate.apply(hidden)
        maps["primary2"] = convolve(hidden, layers["primary2"], relu=False)
        maps["cheap2"] = convolve([maps["primary2"]], layers["cheap2"], relu=False)
        residual = inputs
        if "shortcut1" in layers:
            maps["shortcut1"] = convolve([inputs], layers["shortcut1"], relu=False)
            residual = maps["shortcut2"] = convolve([maps["shortcut1"]], layers["shortcut2"], relu=False)
        ctx.pairs, ctx.maps = pairs, [(name, m.relu) for name, m in maps.items()]
        tensors = [t for m in maps.values() for t in (m.values, m.statistics)]
        ctx.save_for_backward(inputs.values, *tensors, *parameters)
        return join([maps["primary2"], maps["cheap2"]], residual).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, *saved = ctx.saved_tensors
        inputs = Map(values)
        maps = {name: Map(saved[2 * i], saved[2 * i + 1], relu) for i, (name, relu) in enumerate(ctx.maps)}
        layers = _layers(ctx.pairs, saved[2 * len(maps) :])
        gradients: dict[str, tuple[Tensor, ...]] = {}

        def back(name: str, gradient: Gradient, of: Sequence[Map], *targets: Target) -> None:
            gradients[name] = convolve_backward(gradient, of, layers[name], targets)

        def target(name: str, add: Gradient | None = None, *, out: Tensor | None = None) -> tuple[Target, Gradient]:
            """Return the destination of the complete gradient of this map, and the gradient as it is read there."""
            norm = NormGradient(layers[name].gamma)
            out = torch.empty_like(maps[name].values) if out is None else out
            return Target(out, add, norm), Gradient(maps[name], out, norm)

        # The second module: its ghosts, then its intrinsic maps. d_out serves both halves, and the shortcut.
        d_out = grad.permute(0, 2, 3, 1).contiguous()
        primary = maps["primary2"]
        d_ghosts = norm_gradient(maps["cheap2"], d_out, layers["cheap2"].gamma, first=primary.channels)
        to, d_primary = target("primary2", Gradient(primary, d_out))
        back("cheap2", d_ghosts, [primary], to)

        names = _hidden(layers)
        hidden, norms = [maps[name] for name in names], [NormGradient(layers[name].gamma) for name in names]
        outs = [torch.empty_like(m.values) for m in hidden]
        offset, of_gate = None, []
        if ctx.gate is None:  # the gradient of the first intrinsic maps is not complete yet
            wanted = [None if name == "primary1" else norm for name, norm in zip(names, norms, strict=True)]
            back("primary2", d_primary, hidden, *(Target(out, None, n) for out, n in zip(outs, wanted, strict=True)))
        else:
            hidden = ctx.gate.apply(hidden)
            sums = [torch.zeros_like(passed) for passed in ctx.gate.passed]
            back("primary2", d_primary, hidden, *(Target(o, None, None, s) for o, s in zip(outs, sums, strict=True)))
            offset, of_gate = ctx.gate.backward(hidden, sums, [layers[name].beta for name in names], norms)
        d_hidden = [Gradient(m, out, n, 0, offset) for m, out, n in zip(hidden, outs, norms, strict=True)]

        # The first module, through the convolution between them.
        if "conv_dw" in layers:
            first = Target(torch.empty_like(maps["primary1"].values))
            second, d_second = target("cheap1")
            back("conv_dw", d_hidden[0], [maps["primary1"], maps["cheap1"]], first, second)
            d_hidden = [Gradient(maps["primary1"], first.values), d_second]
        to, d_first = target("primary1", d_hidden[0], out=d_hidden[0].values)
        back("cheap1", d_hidden[1], [maps["primary1"]], to)

        d_x = torch.empty_like(inputs.values)
        shortcut_gradient = Gradient(inputs, d_out)
        if "shortcut1" in layers:
            to, d_between = target("shortcut1")
            d_shortcut = norm_gradient(maps["shortcut2"], d_out, layers["shortcut2"].gamma)
            back("shortcut2", d_shortcut, [maps["shortcut1"]], to)
            back("shortcut1", d_between, [inputs], Target(d_x))
            shortcut_gradient = Gradient(inputs, d_x)
        back("primary1", d_first, [inputs], Target(d_x, shortcut_gradient))
        of_layers = [g for name in layers for g in gradients[name]]
        return d_x.permute(0, 3, 1, 2), None, None, *of_layers, *of_gate
