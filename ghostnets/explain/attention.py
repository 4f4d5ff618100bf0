"""DFC attention maps of GhostNetV2 and V3, and Grad-CAM for any network."""

from contextlib import ExitStack
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
    """Gates of one DFC attention for one image.

    Attributes:
        layer: Name of the gated Ghost module.
        gates: float32 (C, h, w) in (0, 1), at half the resolution of the maps they multiply.
    """

    layer: str
    gates: Tensor


@torch.no_grad()
def collect_dfc_attention(model: nn.Module, x: Tensor) -> list[AttentionMaps]:
    """Run one image through a network and collect its DFC gates, in execution order; empty without DFC attention.

    Args:
        model: Any network, in evaluation mode.
        x: Preprocessed image, (1, C, H, W).
    """
    collected: list[AttentionMaps] = []

    def hook(layer: str) -> Any:
        def record(module: nn.Module, _: Any, output: Tensor) -> None:
            collected.append(AttentionMaps(layer, output[0].float().sigmoid()))

        return record

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, DFCGate):
                hooks.enter_context(module.register_forward_hook(hook(name.rpartition(".")[0])))
        model(x)
    return collected


def grad_cam(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Compute Grad-CAM of the predicted class on the last layer with a spatial extent.

    Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv 1610.02391): the ReLU of the sum of the layer's maps, each weighted
    by the mean gradient of the predicted class's logit.

    Args:
        model: Classifier in evaluation mode; left unchanged, no gradient of its weights is accumulated.
        x: Preprocessed image, (1, C, H, W).

    Returns:
        Heat map, float32 (H, W) in [0, 1], upsampled to the input size, 0 everywhere without positive evidence; and the
        index of the predicted class.

    Raises:
        ConfigurationError: The network has no feature maps.
    """
    layers = find_map_layers(model, x)
    if not layers:
        raise ConfigurationError(
            f"{type(model).__name__} has no layer with several feature maps of more than one pixel; Grad-CAM needs one."
        )
    recorded: list[Tensor] = []

    def record(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        recorded.append(output)
        return output.clone()  # later modules may work in place

    with (
        model.get_submodule(layers[-1].output_module).register_forward_hook(record),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        logits = model(x.clone().requires_grad_())
        predicted = int(logits[0].argmax())
        gradient = torch.autograd.grad(logits[0, predicted], recorded[0])[0]
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * recorded[0].detach()).sum(1, keepdim=True).relu().float()
    heat = F.interpolate(heat, size=x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    peak = float(heat.max())
    return heat / peak if peak > 0 else heat, predicted
