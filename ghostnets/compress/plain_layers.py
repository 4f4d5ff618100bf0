"""Layers that compute no more than their weight and bias say, so that some of their channels can be left out."""

import torch
from torch import Tensor, nn

from ghostnets.layers import narrow_conv
from ghostnets.layers.copying import copy_module

__all__ = ["has_plain_inputs", "has_plain_outputs"]

FACTORS = (-2.0, 1.5)  # one of either sign, so that a layer with an activation inside is none of these
SHIFT = 1.0


@torch.no_grad()
def has_plain_outputs(conv: nn.Conv2d, x: Tensor, output: Tensor) -> bool:
    """Return whether a convolution of any class keeps chosen output channels as they are, and adds its bias last.

    Args:
        conv: Convolution without groups or depthwise, in evaluation mode.
        x: Its input, (N, C_in, H, W).
        output: Its output, (N, C_out, H', W').
    """
    if type(conv) is nn.Conv2d:
        return True
    kept = _every_second(conv.out_channels)
    try:
        made = _without_hooks(conv)
        assert isinstance(made, nn.Conv2d)
        made = narrow_conv(made, outputs=kept, bias=True)
        factor = torch.tensor(FACTORS).to(output).repeat(len(kept))[: len(kept)]
        assert made.bias is not None
        made.weight.mul_(factor[:, None, None, None])
        made.bias.mul_(factor).add_(SHIFT)
        got = made(x[:, kept] if conv.groups > 1 else x)
    except Exception:  # code of any class
        return False
    return _is_close(got, output[:, kept] * factor[:, None, None] + SHIFT)


@torch.no_grad()
def has_plain_inputs(layer: nn.Conv2d | nn.Linear, x: Tensor) -> bool:
    """Return whether a layer of any class computes the same without chosen input channels as with weights of zero.

    Args:
        layer: Convolution without groups or linear layer, in evaluation mode.
        x: Its input, (N, C, H, W) or (N, C).
    """
    if type(layer) in (nn.Conv2d, nn.Linear):
        return True
    kept = _every_second(x.shape[1])
    try:
        zeroed, made = _without_hooks(layer), _without_hooks(layer)
        zeroed.weight.sub_(zeroed.weight.index_fill(1, kept, 0))
        made.weight = nn.Parameter(FACTORS[0] * layer.weight[:, kept])
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        made.bias = nn.Parameter(FACTORS[0] * bias + SHIFT)
        if isinstance(made, nn.Conv2d):
            made.in_channels = len(kept)
        else:
            made.in_features = len(kept)
        expected, got = FACTORS[0] * zeroed(x) + SHIFT, made(x[:, kept])
    except Exception:  # code of any class
        return False
    return _is_close(got, expected)


def _every_second(channels: int) -> Tensor:
    return torch.arange(channels, device="cpu").flip(0)[::2]


def _without_hooks(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Return a copy of a layer that runs its own code alone."""
    copied = copy_module(layer)
    for hooks in (copied._forward_pre_hooks, copied._forward_hooks, copied._forward_hooks_with_kwargs):
        hooks.clear()
    return copied


def _is_close(got: Tensor, expected: Tensor) -> bool:
    if got.shape != expected.shape:
        return False
    return torch.allclose(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
