"""Where a network looks: the DFC attention of GhostNetV2 and V3, and the class activation map of any network."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.explain.maps import find_map_layers
from ghostnets.layers import DFCGate

__all__ = ["AttentionMaps", "collect_dfc_attention", "grad_cam"]


@dataclass(frozen=True)
class AttentionMaps:
    """The gates of one DFC attention for one image.

    Attributes:
        layer: Name of the Ghost module they belong to.
        gates: float32 (C, h, w) in (0, 1), at half the resolution of the maps that they multiply.
    """

    layer: str
    gates: Tensor


@torch.no_grad()
def collect_dfc_attention(model: nn.Module, x: Tensor) -> list[AttentionMaps]:
    """Runs one image through a network and keeps its DFC gates, in the order they run; empty where it has none.

    Args:
        model: Any network, in evaluation mode.
        x: (1, C, H, W), ready for the network.
    """
    found: list[AttentionMaps] = []

    def keep(name: str) -> Any:
        def record(module: nn.Module, _: Any, output: Tensor) -> None:
            found.append(AttentionMaps(name, output[0].float().sigmoid()))

        return record

    handles = [
        module.register_forward_hook(keep(name.rpartition(".")[0]))
        for name, module in model.named_modules()
        if isinstance(module, DFCGate)
    ]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def grad_cam(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Which parts of an image speak for the answer: Grad-CAM on the last layer that still has an extent.

    Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv 1610.02391): the layer's maps, each weighted by the mean gradient of
    the answer's logit, are added up; what is below 0 speaks against the answer and is cut off.

    Args:
        model: A classifier, in evaluation mode; nothing in it changes, gradients of its weights are not touched.
        x: (1, C, H, W), ready for the network.

    Returns:
        float32 (H, W) in [0, 1], enlarged to the input (all 0 where nothing speaks for the answer); the answer's index.

    Raises:
        ConfigurationError: The network makes no maps.
    """
    layers = find_map_layers(model, x)
    if not layers:
        raise ConfigurationError(f"{type(model).__name__} makes no maps, so it has no class activation map.")
    kept: list[Tensor] = []

    def keep(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what follows may work in place

    handle = model.get_submodule(layers[-1].last).register_forward_hook(keep)
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            logits = model(x.clone().requires_grad_())
            answer = int(logits[0].argmax())
            gradient = torch.autograd.grad(logits[0, answer], kept[0])[0]
    finally:
        handle.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * kept[0].detach()).sum(1, keepdim=True).clamp(min=0).float()
    heat = F.interpolate(heat, size=x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    peak = float(heat.max())
    return heat / peak if peak > 0 else heat, answer
