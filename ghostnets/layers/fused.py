"""Ghost bottlenecks as one step of automatic differentiation, for training on a CPU.

A bottleneck of separate layers passes over its widest maps some twenty times: convolution, statistics, normalisation,
ReLU and concatenation each read and write them, forwards and backwards. Here a convolution writes its raw output once and
sums its statistics on the way; who reads it normalises. ``docs/training_speed.md`` has the figures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ghostnets.layers.fused_maps import (
    ConvNorm,
    Gradient,
    Map,
    NormGradient,
    Target,
    convolve,
    convolve_back,
    gradient_of_norm,
    finish_gradient,
    image_sums,
    join,
)

__all__ = ["applies", "bottleneck", "fused_training"]

_is_on = False


@contextmanager
def fused_training() -> Iterator[None]:
    """Within it, Ghost bottlenecks in training mode are computed by the fused kernels, where they can be.

    They can where the native part was built and the bottleneck is that of GhostNet V1 (ratio 2, cheap kernels of 3 or 5,
    no dilation, no stochastic depth), its normalisations are in training mode, no module in it has a hook, and the input is
    float32 or float64 on the CPU, outside of autocast, tracing and compilation. Anything else takes the ordinary way.
    Results are the same up to rounding. Second derivatives cannot be taken.
    """
    global _is_on
    before, _is_on = _is_on, find_spec("ghostnets.layers._training") is not None
    try:
        yield
    finally:
        _is_on = before


def applies(module: Any, x: Tensor) -> bool:
    """Whether ``bottleneck`` computes this module for this input."""
    if torch.compiler.is_compiling() or not _is_on or not module.training or type(x) is not Tensor:
        return False
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return False
    if torch.jit.is_tracing() or torch._C._are_functorch_transforms_active() or x.dim() != 4:
        return False
    if type(module.drop_path) is not nn.Identity or any(g.short_conv is not None for g in (module.ghost1, module.ghost2)):
        return False
    if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules() if m is not module):
        return False
    if any(g.has_surplus or g.ratio != 2 for g in (module.ghost1, module.ghost2)):
        return False
    pairs = _pairs(module)
    if not all(_is_simple(conv, norm, x.dtype) for conv, norm in pairs.values()):
        return False
    stride = pairs["conv_dw"][0].stride[0] if "conv_dw" in pairs else 1
    return x.shape[0] * -(-x.shape[2] // stride) * -(-x.shape[3] // stride) > 1  # else normalisation must refuse


def _pairs(module: Any) -> dict[str, tuple[nn.Module, nn.Module]]:
    """The convolutions of a bottleneck, each with its normalisation, by what they are."""
    pairs = {
        "primary1": module.ghost1.primary_conv[:2],
        "cheap1": module.ghost1.cheap_operation[:2],
        "primary2": module.ghost2.primary_conv[:2],
        "cheap2": module.ghost2.cheap_operation[:2],
    }
    if type(module.conv_dw) is not nn.Identity:
        pairs["conv_dw"] = (module.conv_dw, module.bn_dw)
    if len(module.shortcut):
        pairs["shortcut1"], pairs["shortcut2"] = module.shortcut[:2], module.shortcut[2:]
    return {name: (*pair,) for name, pair in pairs.items()}


def _is_simple(conv: nn.Module, norm: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the kernels know such a convolution and normalisation."""
    if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or conv.bias is not None:
        return False
    size, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups == 1:
        fits = size == 1 and stride == 1
    else:
        fits = size in (3, 5) and stride in (1, 2) and conv.groups == conv.in_channels == conv.out_channels
    fits = fits and conv.kernel_size[1] == size and conv.stride[1] == stride
    fits = fits and conv.padding == (size // 2, size // 2) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    fits = fits and norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
    tensors = (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return fits and all(t is not None and t.dtype == dtype and t.is_contiguous() for t in tensors)


def bottleneck(module: Any, x: Tensor) -> Tensor:
    """The output of a ``GhostBottleneck`` to which the kernels apply: (N, C, H, W), channels last in memory."""
    pairs = _pairs(module)
    parameters = [p for conv, norm in pairs.values() for p in (conv.weight, norm.weight, norm.bias)]
    se = module.se
    gate = [] if type(se) is nn.Identity else [*se.conv_reduce.parameters(), *se.conv_expand.parameters()]
    return _Bottleneck.apply(x, pairs, len(gate) > 0, *parameters, *gate)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Gate:
    """Squeeze-and-excitation of a bottleneck, and what its gradient needs."""

    mean: Tensor  # (N, C), a leaf
    parameters: list[Tensor]  # leaves
    gate: Tensor  # (N, C)
    passed: list[Tensor]  # (2, N, C_i) of each part: ``image_sums``


def _gate(hidden: Sequence[Map], betas: Sequence[Tensor], parameters: Sequence[Tensor]) -> _Gate:
    passed = [image_sums(part) for part in hidden]
    pixels = hidden[0].values.shape[1] * hidden[0].values.shape[2]
    means = [
        (part.statistics[2] * sums + beta * count) / pixels  # scale (z - mean) + beta, summed over what passes
        for part, beta, (count, sums) in zip(hidden, betas, passed, strict=True)
        if part.statistics is not None
    ]
    with torch.enable_grad():
        mean = torch.cat(means, 1).requires_grad_()
        reduce, reduce_bias, expand, expand_bias = leaves = [p.detach().requires_grad_() for p in parameters]
        squeezed = F.relu(F.linear(mean, reduce.flatten(1), reduce_bias))
        gate = F.hardsigmoid(F.linear(squeezed, expand.flatten(1), expand_bias))
    return _Gate(mean, leaves, gate, passed)


def _gated(hidden: Sequence[Map], gate: _Gate | None) -> list[Map]:
    """The maps as the second module reads them."""
    if gate is None:
        return list(hidden)
    values = gate.gate.detach()
    firsts = [sum(m.channels for m in hidden[:i]) for i in range(len(hidden))]
    return [replace(m, gate=values, gate_from=first) for m, first in zip(hidden, firsts, strict=True)]


def _gate_back(
    gate: _Gate, hidden: Sequence[Map], sums: Sequence[Tensor], betas: Sequence[Tensor], norms: Sequence[NormGradient]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Through squeeze-and-excitation, from the sums over each image: (2, N, C_i) of d, and of d (z - mean), masked.

    Returns:
        What the mean adds to the gradient of every pixel, (N, C), and the gradients of the four parameters. The
        normalisations are given what the sums over all images come to, as if there were no other gradient.
    """
    of_gate = [
        part.statistics[2] * products + beta * plain
        for part, (plain, products), beta in zip(hidden, sums, betas, strict=True)
        if part.statistics is not None
    ]
    of_mean, *of_parameters = torch.autograd.grad(
        gate.gate, [gate.mean, *gate.parameters], torch.cat(of_gate, 1), retain_graph=True
    )
    offset = of_mean / (hidden[0].values.shape[1] * hidden[0].values.shape[2])
    for part, own, passed, norm in zip(hidden, sums, gate.passed, norms, strict=True):
        columns = slice(part.gate_from, part.gate_from + part.channels)
        total = (gate.gate.detach()[:, columns] * own + offset[:, columns] * passed).double().sum(1)
        finish_gradient(part, total, norm)
    return offset, tuple(of_parameters)


def _layers(pairs: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, ConvNorm]:
    """Layers by what they are, with the parameters of this call: three for each."""
    return {name: ConvNorm(*pair, *parameters[3 * i : 3 * i + 3]) for i, (name, pair) in enumerate(pairs.items())}


class _Bottleneck(torch.autograd.Function):
    """x (N, C, H, W), the pairs of layers, whether there is a gate, and all parameters -> (N, C', H', W')."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: dict[str, Any], has_gate: bool, *parameters: Tensor) -> Tensor:
        layers = _layers(pairs, parameters)
        inputs = Map(x.detach().permute(0, 2, 3, 1).contiguous())
        first = convolve([inputs], layers["primary1"], relu=True)
        hidden = [first, convolve([first], layers["cheap1"], relu=True)]
        maps = [inputs, *hidden]
        betas = [layers["primary1"].beta, layers["cheap1"].beta]
        if "conv_dw" in layers:
            hidden, betas = [convolve(hidden, layers["conv_dw"], relu=False)], [layers["conv_dw"].beta]
            maps += hidden
        ctx.gate = _gate(hidden, betas, parameters[-4:]) if has_gate else None
        gated = _gated(hidden, ctx.gate)
        primary = convolve(gated, layers["primary2"], relu=False)
        out = [primary, convolve([primary], layers["cheap2"], relu=False)]
        maps += out
        residual = inputs
        if "shortcut1" in layers:
            between = convolve([inputs], layers["shortcut1"], relu=False)
            residual = convolve([between], layers["shortcut2"], relu=False)
            maps += [between, residual]
        ctx.pairs, ctx.relus = pairs, [m.relu for m in maps]
        ctx.save_for_backward(
            *parameters, *(m.values for m in maps), *(m.statistics for m in maps if m.statistics is not None)
        )
        return join(out, residual).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.relus)
        saved = ctx.saved_tensors
        parameters, rest = saved[: -2 * count + 1], saved[-2 * count + 1 :]
        layers = _layers(ctx.pairs, parameters)
        inputs = Map(rest[0])
        maps = iter(map(Map, rest[1:count], rest[count:], ctx.relus[1:]))
        ghost1 = [next(maps), next(maps)]
        hidden = [next(maps)] if "conv_dw" in layers else ghost1
        primary, cheap = next(maps), next(maps)
        d_out = grad.permute(0, 2, 3, 1).contiguous()  # of both halves, and of the shortcut
        gradients: dict[str, tuple[Tensor, ...]] = {}

        def back(name: str, gradient: Gradient, of: Sequence[Map], *targets: Target) -> None:
            gradients[name] = convolve_back(gradient, of, layers[name], targets)

        # The second module: its ghosts, then its intrinsic maps.
        norm = NormGradient(layers["primary2"].gamma)
        d_primary = torch.empty_like(primary.values)
        d_cheap = gradient_of_norm(cheap, d_out, layers["cheap2"].gamma, first=primary.channels)
        back("cheap2", d_cheap, [primary], Target(d_primary, Gradient(primary, d_out), norm))
        gated = _gated(hidden, ctx.gate)
        # Sums over the gradient of the hidden maps: at once where nothing is added to it later.
        names = ["conv_dw"] if "conv_dw" in layers else ["primary1", "cheap1"]
        norms = [NormGradient(layers[name].gamma) for name in names]
        by_image = [torch.zeros_like(passed) for passed in ctx.gate.passed] if ctx.gate else [None] * len(hidden)
        targets = [
            Target(torch.empty_like(part.values), norm=norm if ctx.gate is None and name != "primary1" else None, image_sums=own)
            for part, name, norm, own in zip(hidden, names, norms, by_image, strict=True)
        ]
        back("primary2", Gradient(primary, d_primary, norm), gated, *targets)
        offset, of_gate = None, ()
        if ctx.gate is not None:
            betas = [layers[name].beta for name in names]
            offset, of_gate = _gate_back(ctx.gate, gated, by_image, betas, norms)
        d_hidden = [
            Gradient(part, target.values, norm, 0, offset)
            for part, target, norm in zip(gated, targets, norms, strict=True)
        ]
        if "conv_dw" in layers:
            norms = [NormGradient(layers[name].gamma) for name in ("primary1", "cheap1")]
            targets = [Target(torch.empty_like(ghost1[0].values)), Target(torch.empty_like(ghost1[1].values), norm=norms[1])]
            back("conv_dw", d_hidden[0], ghost1, *targets)
            d_hidden = [Gradient(m, t.values, n) for m, t, n in zip(ghost1, targets, norms, strict=True)]
        # The first module.
        d_first = d_hidden[0].values
        back("cheap1", d_hidden[1], ghost1[:1], Target(d_first, d_hidden[0], norms[0]))
        d_x = torch.empty_like(inputs.values)
        shortcut = Gradient(inputs, d_out)
        if "shortcut1" in layers:
            between, residual = next(maps), next(maps)
            norm = NormGradient(layers["shortcut1"].gamma)
            d_between = torch.empty_like(between.values)
            d_residual = gradient_of_norm(residual, d_out, layers["shortcut2"].gamma)
            back("shortcut2", d_residual, [between], Target(d_between, norm=norm))
            back("shortcut1", Gradient(between, d_between, norm), [inputs], Target(d_x))
            shortcut = Gradient(inputs, d_x)
        back("primary1", Gradient(ghost1[0], d_first, norms[0]), [inputs], Target(d_x, shortcut))
        flat = [g for name in layers for g in gradients[name]]
        return d_x.permute(0, 3, 1, 2), None, None, *flat, *of_gate
