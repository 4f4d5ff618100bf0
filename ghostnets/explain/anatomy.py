"""Inside a Ghost network: intrinsic maps beside the ghosts made from them, and the cheap kernels that make them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.explain.ghosts import find_ghost_modules
from ghostnets.layers import RepConv, fold_batch_norm, norm_arguments

__all__ = ["KERNEL_KINDS", "CheapKernels", "GhostMaps", "collect_cheap_kernels", "collect_ghost_maps"]

KERNEL_KINDS = ("nothing", "identity", "shift", "blur", "edge", "mixed")


@dataclass(frozen=True)
class GhostMaps:
    """What one Ghost module made of one image.

    Attributes:
        layer: Name of the module.
        intrinsic: float32 (m, H, W), output of the ordinary convolution.
        ghosts: float32 (m, s - 1, H, W): ``ghosts[i]`` are made from ``intrinsic[i]`` alone.
    """

    layer: str
    intrinsic: Tensor
    ghosts: Tensor

    def similarity(self) -> Tensor:
        """Cosine of each ghost with its intrinsic map, both centred: float32 (m, s - 1) in [-1, 1].

        1 is a copy up to brightness and contrast, 0 no linear relation, -1 a negative. A constant map has none: nan.
        """
        first = self.intrinsic.flatten(1)[:, None]
        second = self.ghosts.flatten(2)
        first, second = (maps - maps.mean(-1, keepdim=True) for maps in (first, second))
        norms = first.norm(dim=-1) * second.norm(dim=-1)
        return torch.where(norms > 0, (first * second).sum(-1) / norms, torch.nan)


@dataclass(frozen=True)
class CheapKernels:
    """The learned cheap operation of one Ghost module.

    Attributes:
        layer: Name of the module.
        kernels: float32 (m, s - 1, d, d), normalisation folded in: ``kernels[i]`` make the ghosts of intrinsic map i.
    """

    layer: str
    kernels: Tensor

    def distance_from_identity(self) -> Tensor:
        """How far each kernel is from the nearest multiple of the identity: (m, s - 1) in [0, 1].

        ``min over a of |K - a I| / |K|``: 0 is a copy up to brightness and contrast, 1 has no weight in the middle;
        nan for a kernel of zeros.
        """
        squares = self.kernels.square()
        middle = squares[..., self.kernels.shape[-2] // 2, self.kernels.shape[-1] // 2]
        return (1 - middle / squares.sum((-2, -1))).clamp(min=0).sqrt()

    def kinds(self) -> list[str]:
        """What each kernel does, in the order of ``kernels``: the first of these that holds.

        - nothing: its norm is below a thousandth of the largest in the layer.
        - identity: the weight in the middle has 90 % of the energy (sum of squares); the distance is below 0.32.
        - shift: another single weight has 90 % of it.
        - blur: weights of one sign (``|sum K| >= 0.9 sum |K|``).
        - edge: the weights nearly cancel, so that flat areas vanish (``|sum K| <= 0.25 sum |K|``).
        - mixed: anything else, such as a copy with its edges sharpened.
        """
        flat = self.kernels.flatten(2).flatten(0, 1)  # (m (s - 1), d^2)
        energy = flat.square()
        share = energy / energy.sum(1, keepdim=True)
        balance = flat.sum(1).abs() / flat.abs().sum(1)
        norms = energy.sum(1).sqrt()
        tests = [
            norms <= 1e-3 * norms.max(),
            share[:, flat.shape[1] // 2] >= 0.9,
            share.max(1).values >= 0.9,
            balance >= 0.9,
            balance <= 0.25,
        ]
        return [
            KERNEL_KINDS[row.index(True)] for row in zip(*(t.tolist() for t in tests), [True] * len(flat), strict=True)
        ]


def collect_cheap_kernels(model: nn.Module) -> list[CheapKernels]:
    """The cheap kernels of every Ghost module with ghosts, in the network's order; branches of V3 are merged."""
    found = []
    for name, module in find_ghost_modules(model).items():
        convolution, after = module.cheap_operation[0], module.cheap_operation[1]
        if isinstance(convolution, RepConv):
            weight = convolution.merged().weight.detach()
        else:
            assert isinstance(convolution, nn.Conv2d)
            weight = convolution.weight.detach()
            if isinstance(after, nn.BatchNorm2d):
                weight = fold_batch_norm(weight, None, **norm_arguments(after))[0].detach()
        found.append(CheapKernels(name, weight.float().reshape(convolution.in_channels, -1, *weight.shape[2:])))
    return found


@torch.no_grad()
def collect_ghost_maps(model: nn.Module, x: Tensor) -> list[GhostMaps]:
    """Runs one image through a network and keeps what its Ghost modules made.

    Args:
        model: Any network with Ghost modules, in evaluation mode.
        x: (1, C, H, W), ready for the network.

    Returns:
        One entry for each Ghost module with ghosts, in the order they ran.
    """
    found: list[GhostMaps] = []
    halves: dict[str, Tensor] = {}

    def keep(key: str) -> Any:
        def record(module: nn.Module, _: Any, output: Tensor) -> None:
            halves[key] = output[0].detach().float().clone()

        return record

    def finish(name: str) -> Any:
        def record(module: nn.Module, _: Any, output: Tensor) -> None:
            intrinsic, ghosts = halves[f"{name}/intrinsic"], halves[f"{name}/ghosts"]
            # The depthwise convolution puts the s - 1 ghosts of each intrinsic map next to each other.
            found.append(GhostMaps(name, intrinsic, ghosts.reshape(len(intrinsic), -1, *ghosts.shape[1:])))

        return record

    handles = []
    for name, module in find_ghost_modules(model).items():
        handles.append(module.primary_conv.register_forward_hook(keep(f"{name}/intrinsic")))
        handles.append(module.cheap_operation.register_forward_hook(keep(f"{name}/ghosts")))
        handles.append(module.register_forward_hook(finish(name)))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
