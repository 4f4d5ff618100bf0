"""GhostNetV3: GhostNetV2 with re-parameterisable convolutions, which have several branches in training.

Liu et al., "GhostNetV3: Exploring the Training Strategies for Compact Models" (arXiv 2404.11202). The primary
convolution, the cheap operation and the depthwise convolution between the modules are each a sum of three parallel
convolutions; the last two add a 1x1 branch, the cheap operation also an identity branch. ``compress.reparameterize``
merges the branches: the deployed network has the cost of GhostNetV2.
"""

from typing import Any

from torch import nn

from ghostnets.layers import GhostBottleneck
from ghostnets.models.ghostnet import GhostNet
from ghostnets.models.ghostnetv2 import UNGATED_BLOCKS
from ghostnets.models.network import Variant

__all__ = ["VARIANTS", "GhostNetV3"]

BRANCHES = 3

VARIANTS: dict[str, Variant] = {
    # in training form:                        params    MACs   top-1; published, merged: params, MACs
    "ghostnetv3_050": Variant({"width": 0.5}, 3.3954, 117.53),
    "ghostnetv3_100": Variant({"width": 1.0}, 8.1290, 404.13, 77.1, 6.1, 170.0),
    "ghostnetv3_130": Variant({"width": 1.3}, 12.2177, 654.84, 79.1, 8.9, 269.0),
    "ghostnetv3_160": Variant({"width": 1.6}, 17.2757, 971.57, 80.4, 12.3, 400.0),
}


class GhostNetV3(GhostNet):
    """GhostNetV3 in training form: images (N, in_chans, H, W) -> logits (N, num_classes); arguments as ``GhostNet``."""

    def make_block(
        self, index: int, in_channels: int, hidden_channels: int, out_channels: int, **options: Any
    ) -> nn.Module:
        has_gate = index >= UNGATED_BLOCKS
        return GhostBottleneck(in_channels, hidden_channels, out_channels, dfc=has_gate, branches=BRANCHES, **options)
