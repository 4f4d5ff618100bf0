"""GhostNetV2: GhostNet with a DFC attention gate on the first Ghost module of each bottleneck.

Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022 (arXiv 2211.12905). Block
specifications, widths and module names are those of V1; the first two bottlenecks have no gate.
"""

from typing import Any

from torch import nn

from ghostnets.layers import GhostBottleneck
from ghostnets.models.ghostnet import GhostNet
from ghostnets.models.network import Variant

__all__ = ["VARIANTS", "GhostNetV2"]

UNGATED_BLOCKS = 2

VARIANTS: dict[str, Variant] = {
    #                                          params    MACs   top-1; published params, MACs
    "ghostnetv2_050": Variant({"width": 0.5}, 2.8578, 49.64),
    "ghostnetv2_100": Variant({"width": 1.0}, 6.1569, 167.05, 75.3, None, 167.0),
    "ghostnetv2_130": Variant({"width": 1.3}, 8.9604, 269.32, 76.9, None, 269.0),
    "ghostnetv2_160": Variant({"width": 1.6}, 12.3927, 398.61, 77.8, None, 399.0),
}


class GhostNetV2(GhostNet):
    """GhostNetV2: images (N, in_chans, H, W) -> logits (N, num_classes); arguments as ``GhostNet``."""

    def make_block(
        self, index: int, in_channels: int, hidden_channels: int, out_channels: int, **options: Any
    ) -> nn.Module:
        has_gate = index >= UNGATED_BLOCKS
        return GhostBottleneck(in_channels, hidden_channels, out_channels, dfc=has_gate, **options)
