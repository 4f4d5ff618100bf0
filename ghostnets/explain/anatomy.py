"""Inside a Ghost network: intrinsic maps, the ghosts derived from them, and the cheap kernels that derive them."""

from contextlib import ExitStack
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
    """Maps of one Ghost module for one image.

    Attributes:
        layer: Name of the module.
        intrinsic: Output of the primary convolution, float32 (m, H, W).
        ghosts: Output of the cheap operation, float32 (m, s - 1, H, W); ``ghosts[i]`` depend on ``intrinsic[i]`` alone.
    """

    layer: str
    intrinsic: Tensor
    ghosts: Tensor

    def similarity(self) -> Tensor:
        """Return the cosine of each ghost with its intrinsic map, both centred: float32 (m, s - 1) in [-1, 1].

        1 is a copy up to brightness and contrast, 0 uncorrelated, -1 a negative; nan if one of the maps is constant.
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
        kernels: float32 (m, s - 1, d, d), normalisation folded in; ``kernels[i]`` apply to intrinsic map i.
    """

    layer: str
    kernels: Tensor

    def distance_from_identity(self) -> Tensor:
        """Return the relative distance of each kernel from the nearest multiple of the identity: (m, s - 1) in [0, 1].

        ``min over a of |K - a I| / |K|``: 0 is a copy up to brightness and contrast, 1 a kernel with zero centre
        weight; nan for a kernel of zeros.
        """
        squares = self.kernels.square()
        centre = squares[..., self.kernels.shape[-2] // 2, self.kernels.shape[-1] // 2]
        return (1 - centre / squares.sum((-2, -1))).clamp(min=0).sqrt()

    def kinds(self) -> list[str]:
        """Classify each kernel, in the order of ``kernels``, by the first rule that applies.

        - nothing: norm below a thousandth of the largest in the layer.
        - identity: the centre weight holds 90 % of the energy (sum of squares), i.e. the distance is below 0.32.
        - shift: another single weight holds 90 % of the energy.
        - blur: weights of one sign (``|sum K| >= 0.9 sum |K|``).
        - edge: weights that nearly cancel, so that flat areas vanish (``|sum K| <= 0.25 sum |K|``).
        - mixed: any other kernel, such as one that sharpens edges.
        """
        flat = self.kernels.flatten(2).flatten(0, 1)  # (m (s - 1), d^2)
        energy = flat.square()
        share = energy / energy.sum(1, keepdim=True)
        balance = flat.sum(1).abs() / flat.abs().sum(1)
        norms = energy.sum(1).sqrt()
        rules = [
            norms <= 1e-3 * norms.max(),
            share[:, flat.shape[1] // 2] >= 0.9,
            share.max(1).values >= 0.9,
            balance >= 0.9,
            balance <= 0.25,
        ]
        return [
            KERNEL_KINDS[row.index(True)] for row in zip(*(r.tolist() for r in rules), [True] * len(flat), strict=True)
        ]


def collect_cheap_kernels(model: nn.Module) -> list[CheapKernels]:
    """Return the cheap kernels of every Ghost module with ghosts, in network order; branches of V3 are merged."""
    collected = []
    for name, module in find_ghost_modules(model).items():
        convolution, norm = module.cheap_operation[0], module.cheap_operation[1]
        if isinstance(convolution, RepConv):
            weight = convolution.merged().weight.detach()
        else:
            assert isinstance(convolution, nn.Conv2d)
            weight = convolution.weight.detach()
            if isinstance(norm, nn.BatchNorm2d):
                weight = fold_batch_norm(weight, None, **norm_arguments(norm))[0].detach()
        collected.append(CheapKernels(name, weight.float().reshape(convolution.in_channels, -1, *weight.shape[2:])))
    return collected


@torch.no_grad()
def collect_ghost_maps(model: nn.Module, x: Tensor) -> list[GhostMaps]:
    """Run one image through a network and collect the maps of its Ghost modules.

    Args:
        model: Any network with Ghost modules, in evaluation mode.
        x: Preprocessed image, (1, C, H, W).

    Returns:
        One entry for each Ghost module with ghosts, in execution order.
    """
    collected: list[GhostMaps] = []

    def hook(name: str) -> Any:
        def record(cheap_operation: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            intrinsic, ghosts = (maps[0].detach().float().clone() for maps in (inputs[0], output))
            # The depthwise convolution puts the s - 1 ghosts of each intrinsic map next to each other.
            collected.append(GhostMaps(name, intrinsic, ghosts.reshape(len(intrinsic), -1, *ghosts.shape[1:])))

        return record

    with ExitStack() as hooks:
        for name, module in find_ghost_modules(model).items():
            hooks.enter_context(module.cheap_operation.register_forward_hook(hook(name)))
        model(x)
    return collected
