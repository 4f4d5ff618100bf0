"""Inside a Ghost network: the intrinsic maps of an image beside the ghosts made from them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.layers import GhostModule

__all__ = ["GhostMaps", "ghost_maps"]


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


@torch.no_grad()
def ghost_maps(model: nn.Module, x: Tensor) -> list[GhostMaps]:
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
    for name, module in model.named_modules():
        if isinstance(module, GhostModule) and module.has_ghosts:
            handles.append(module.primary_conv.register_forward_hook(keep(f"{name}/intrinsic")))
            handles.append(module.cheap_operation.register_forward_hook(keep(f"{name}/ghosts")))
            handles.append(module.register_forward_hook(finish(name)))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
