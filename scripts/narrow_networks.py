"""Narrow networks that together have every node of the engine, for scripts that mutate plans or make them fail."""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.models import create_model, d_li14, ghost_vgg


class EveryOperation(nn.Module):
    """A network compiled from its graph, with the nodes that no network of the package has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 2, 1)
        self.grouped = nn.Conv2d(8, 12, 2, groups=4)
        self.depthwise = nn.Conv2d(12, 12, (2, 3), padding=(2, 0), groups=12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        gated = F.interpolate(x * x.mean((2, 3), True).sigmoid(), scale_factor=2)
        shifted = F.pad(gated, (0, 0, 0, 0, 1, 0))[:, :2]
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear")[:, 2:], shifted], 1)
        x = F.leaky_relu(self.grouped(F.avg_pool2d(x, 3, 1, 1)), 0.1)
        x = F.hardswish(self.depthwise(x))
        x = F.interpolate(F.adaptive_avg_pool2d(x, (2, 3)), size=x.shape[-2:], mode="bilinear") * x
        return self.head(F.max_pool2d(F.channel_shuffle(x, 3), 2, 1).mean((2, 3)))


def _narrow_vgg() -> nn.Module:
    stages = tuple(tuple(width // 32 for width in widths) for widths in ghost_vgg.STAGES)
    with patch.object(ghost_vgg, "STAGES", stages), patch.object(ghost_vgg, "HEAD_CHANNELS", 8):
        return create_model("ghost_vgg16", num_classes=3)


def _narrow_d_li14() -> nn.Module:
    blocks = {number: spec._replace(hidden_channels=16) for number, spec in d_li14.BLOCKS.items()}
    blocks[1] = d_li14.BLOCKS[1]
    with patch.object(d_li14, "BLOCKS", blocks):
        model: Any = create_model("ghostnet_100_d_li14", num_classes=3)
    model.classifier[0], model.classifier[1] = nn.Linear(960, 8, bias=False), nn.BatchNorm1d(8)
    model.classifier[4] = nn.Linear(8, 3)
    return model


_classifier = partial(create_model, num_classes=3)

NARROW_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "V1": partial(_classifier, "ghostnet_050", width=0.1),
    "ratio 3": partial(_classifier, "ghostnet_100", width=0.1, ratio=3),
    "V2": partial(_classifier, "ghostnetv2_050", width=0.1),
    "V3": partial(_classifier, "ghostnetv3_050", width=0.1),
    "Ghost-ResNet-20": partial(_classifier, "ghost_resnet20"),
    "G-Ghost": partial(_classifier, "g_ghost_regnetx_002", depths=(2, 2, 3, 2), widths=(8, 16, 24, 32), group_width=8),
    "d-li14": _narrow_d_li14,
    "backbone": partial(create_model, "ghostnetv2_100", width=0.1, features_only=True),
    "Ghost-VGG": _narrow_vgg,
    "Ghost-ResNet-50": partial(
        _classifier, "ghost_resnet50", depths=(1, 1, 1, 1), expansion=2, spec=(6, 7, 2, True, True)
    ),
    "every operation": EveryOperation,
}
