"""A Ghost module that replaces a trained convolution, with the same input and output shapes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError

__all__ = ["GhostConv2d", "narrow_conv"]

ACTIVATIONS = {"": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}


class GhostConv2d(nn.Module):
    """Ghost module that replaces a convolution: (N, C_in, H, W) -> (N, C_out, H', W').

    ::

        x ──> primary ──> act ──> intrinsic maps (m) ──┬────────────────────────────────────────┐
                                                       └──> mix, 1x1 ──> cheap, d x d ──> ghosts │
                                                            or one map each   depthwise      │  │
                                                                                          concat, in the order of
                                                                                          the convolution's maps

    It differs from ``GhostModule``, whose networks are trained with it, in what a fit to a given convolution needs: any
    number of intrinsic maps, ghosts of chosen intrinsic maps or of linear combinations of them, maps in the order of
    the convolution, and convolutions with biases instead of normalisations.

    Args:
        conv: The replaced convolution, without groups; any subclass of ``nn.Conv2d`` with its own padding. Copied.
        intrinsic: Number m of intrinsic maps, from 1 to C_out - 1.
        mix: Whether the source of a ghost is a linear combination of all intrinsic maps (m multiply-adds a pixel)
            instead of one of them.
        cheap_kernel_size: Kernel size d of the depthwise filters, odd.
        act: Activation of the intrinsic maps: ``""``, ``"relu"`` or ``"relu6"``. The activation after the module must
            be the same; applying it twice has no effect.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    order: Tensor
    source: Tensor

    def __init__(
        self, conv: nn.Conv2d, intrinsic: int, *, mix: bool, cheap_kernel_size: int = 3, act: str = ""
    ) -> None:
        super().__init__()
        ghosts = conv.out_channels - intrinsic
        if conv.groups != 1 or intrinsic < 1 or ghosts < 1:
            raise ConfigurationError(
                f"a convolution of {conv.groups} groups and {conv.out_channels} maps cannot have {intrinsic} intrinsic"
                " maps; pass a convolution without groups and fewer intrinsic maps than maps."
            )
        if cheap_kernel_size < 1 or cheap_kernel_size % 2 == 0 or act not in ACTIVATIONS:
            raise ConfigurationError(
                f"cheap_kernel_size is {cheap_kernel_size} and act {act!r}; the first must be odd, the second one of"
                f" {', '.join(map(repr, ACTIVATIONS))}."
            )
        like: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.primary = narrow_conv(conv, outputs=torch.arange(intrinsic, device="cpu"), bias=True)
        self.act = ACTIVATIONS[act]()
        self.mix = nn.Conv2d(intrinsic, ghosts, 1, bias=False, **like) if mix else None
        if not mix:
            self.register_buffer("source", torch.arange(ghosts, device=conv.weight.device) % intrinsic)
        padding = cheap_kernel_size // 2
        self.cheap = nn.Conv2d(ghosts, ghosts, cheap_kernel_size, padding=padding, groups=ghosts, **like)
        self.register_buffer("order", torch.arange(conv.out_channels, device=conv.weight.device))

    def sources(self, intrinsic: Tensor) -> Tensor:
        """Return the map that each ghost is filtered from: (N, m, H, W) -> (N, C_out - m, H, W)."""
        return self.mix(intrinsic) if self.mix is not None else intrinsic.index_select(1, self.source)

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.act(self.primary(x))
        ghosts = self.cheap(self.sources(intrinsic))
        return torch.cat([intrinsic, ghosts], dim=1).index_select(1, self.order)


def narrow_conv(
    conv: nn.Conv2d, *, outputs: Tensor | None = None, inputs: Tensor | None = None, bias: bool = False
) -> nn.Conv2d:
    """Return a copy of a convolution with a choice of its channels.

    Args:
        conv: Convolution, left unchanged; of its own class, so that the copy pads like it. If it has groups, it is a
            depthwise one, and ``outputs`` also chooses its inputs.
        outputs: Indices of the output channels, int64; all by default.
        inputs: Indices of the input channels, int64; all by default.
        bias: Whether the copy has a bias in any case, of zeros if the original has none.
    """
    made = copy.deepcopy(conv)
    weight = conv.weight.detach()
    if inputs is not None:
        weight = weight[:, inputs.to(weight.device)]
        made.in_channels = len(inputs)
    old_bias = conv.bias.detach() if conv.bias is not None else None
    if old_bias is None and bias:
        old_bias = weight.new_zeros(conv.out_channels)
    if outputs is not None:
        outputs = outputs.to(weight.device)
        weight, made.out_channels = weight[outputs], len(outputs)
        old_bias = old_bias[outputs] if old_bias is not None else None
        if conv.groups > 1:
            made.in_channels = made.groups = len(outputs)
    made.weight = nn.Parameter(weight.clone())
    made.bias = nn.Parameter(old_bias.clone()) if old_bias is not None else None
    return made
