"""Tables of the GhostNet papers: published numbers, with a builder for the networks that this package implements.

The numbers of the first paper come from an article that reproduces its tables, cross-checked against other sources that
quote them; those of the later papers from the official READMEs, unless the table names another source.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ghostnets.compress import reparameterize
from ghostnets.measure import count
from ghostnets.models import create_model

__all__ = ["TABLES", "PaperRow", "PaperTable", "count_row"]

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        name: Name in the paper.
        params, macs: Published values in millions; None if not published.
        results: Published accuracies, one per column of the table; None if not published.
        build: Builds the network; None if it is not available here.
    """

    name: str
    params: float | None
    macs: float | None
    results: tuple[float | None, ...]
    build: Build | None = None


@dataclass(frozen=True)
class PaperTable:
    """A published table.

    Attributes:
        title: Subject of the table.
        source: Source of the numbers.
        results: Names of the accuracy columns.
        image_size: Side of the input in pixels for counting multiply-adds.
        rows: Rows in the paper's order.
        remark: Note needed to compare published and counted values.
    """

    title: str
    source: str
    results: tuple[str, ...]
    image_size: int
    rows: tuple[PaperRow, ...] = field(repr=False)
    remark: str = ""


def count_row(row: PaperRow, image_size: int) -> tuple[float, float] | None:
    """Count parameters and multiply-adds of a row's network, in millions, branches merged; None without a builder."""
    if row.build is None:
        return None
    with torch.device("meta"):
        cost = count(reparameterize(row.build()), (3, image_size, image_size))
    return cost.params / 1e6, cost.macs / 1e6


def _ghostnets(name: str, **arguments: Any) -> Build:
    return partial(create_model, name, **arguments)


def _torchvision(name: str) -> Build:
    from torchvision.models import get_model

    return partial(get_model, name)


V1_PAPER = "arXiv 1911.11907"
VGG_REMARK = (
    "The counts include the 512 x 512 linear layer (0.26 M), which the published parameters include and the published"
    " MACs omit; the published MACs also assume that the first convolution is a Ghost module."
)
TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        "Kernel d of the cheap operation: Ghost-VGG-16 on CIFAR-10, s = 2",
        f"{V1_PAPER}, table 3",
        ("top-1",),
        32,
        (
            PaperRow("VGG-16", 15.0, 313, (93.6,), _ghostnets("vgg16")),
            PaperRow("d = 1", 7.6, 157, (93.5,), _ghostnets("ghost_vgg16", cheap_kernel_size=1)),
            PaperRow("d = 3", 7.7, 158, (93.7,), _ghostnets("ghost_vgg16")),
            PaperRow("d = 5", 7.7, 160, (93.4,), _ghostnets("ghost_vgg16", cheap_kernel_size=5)),
            PaperRow("d = 7", 7.7, 163, (93.1,), _ghostnets("ghost_vgg16", cheap_kernel_size=7)),
        ),
        VGG_REMARK,
    ),
    PaperTable(
        "Ratio s: Ghost-VGG-16 on CIFAR-10, d = 3",
        f"{V1_PAPER}, table 4",
        ("top-1",),
        32,
        (
            PaperRow("VGG-16", 15.0, 313, (93.6,), _ghostnets("vgg16")),
            PaperRow("s = 2", 7.7, 158, (93.7,), _ghostnets("ghost_vgg16")),
            PaperRow("s = 3", 5.2, 107, (93.4,), _ghostnets("ghost_vgg16", ratio=3)),
            PaperRow("s = 4", 4.0, 80, (93.0,), _ghostnets("ghost_vgg16", ratio=4)),
            PaperRow("s = 5", 3.3, 65, (92.9,), _ghostnets("ghost_vgg16", ratio=5)),
        ),
        VGG_REMARK,
    ),
    PaperTable(
        "Compressed networks on CIFAR-10",
        f"{V1_PAPER}, table 5",
        ("top-1",),
        32,
        (
            PaperRow("VGG-16", 15, 313, (93.6,), _ghostnets("vgg16")),
            PaperRow("l1-VGG-16", 5.4, 206, (93.4,)),
            PaperRow("SBP-VGG-16", None, 136, (92.5,)),
            PaperRow("Ghost-VGG-16 (s = 2)", 7.7, 158, (93.7,), _ghostnets("ghost_vgg16")),
            PaperRow("ResNet-56", 0.85, 125, (93.0,), _ghostnets("resnet56")),
            PaperRow("CP-ResNet-56", None, 63, (92.0,)),
            PaperRow("l1-ResNet-56", 0.73, 91, (92.5,)),
            PaperRow("AMC-ResNet-56", None, 63, (91.9,)),
            PaperRow("Ghost-ResNet-56 (s = 2)", 0.43, 63, (92.7,), _ghostnets("ghost_resnet56")),
        ),
        "Ghost-ResNet-56: the published MACs match the count without the cheap operations (62.96 M).",
    ),
    PaperTable(
        "Compressed ResNet-50 on ImageNet",
        f"{V1_PAPER}, table 6",
        ("top-1", "top-5"),
        224,
        (
            PaperRow("ResNet-50", 25.6, 4100, (75.3, 92.2), _torchvision("resnet50")),
            PaperRow("ThiNet-ResNet-50", 16.9, 2600, (72.1, 90.3)),
            PaperRow("NISP-ResNet-50-B", 14.4, 2300, (None, 90.8)),
            PaperRow("Versatile-ResNet-50", 11.0, 3000, (74.5, 91.8)),
            PaperRow("SSS-ResNet-50", None, 2800, (74.2, 91.9)),
            PaperRow("Ghost-ResNet-50 (s = 2)", 13.0, 2200, (75.0, 92.3), _ghostnets("ghost_resnet50")),
            PaperRow("Shift-ResNet-50", 6.0, None, (70.6, 90.1)),
            PaperRow("Taylor-FO-BN-ResNet-50", 7.9, 1300, (71.7, None)),
            PaperRow("Slimmable-ResNet-50 0.5x", 6.9, 1100, (72.1, None)),
            PaperRow("MetaPruning-ResNet-50", None, 1000, (73.4, None)),
            PaperRow("Ghost-ResNet-50 (s = 4)", 6.5, 1200, (74.1, 91.9), _ghostnets("ghost_resnet50", ratio=4)),
        ),
        "With a dense 2048 x 1000 classifier both Ghost networks are larger than published.",
    ),
    PaperTable(
        "Small networks on ImageNet",
        f"{V1_PAPER}, table 7",
        ("top-1", "top-5"),
        224,
        (
            PaperRow("ShuffleNetV1 0.5x (g = 8)", 1.0, 40, (58.8, 81.0)),
            PaperRow("MobileNetV2 0.35x", 1.7, 59, (60.3, 82.9)),
            PaperRow("ShuffleNetV2 0.5x", 1.4, 41, (61.1, 82.6), _torchvision("shufflenet_v2_x0_5")),
            PaperRow("MobileNetV3-Small 0.75x", 2.4, 44, (65.4, None)),
            PaperRow("GhostNet 0.5x", 2.6, 42, (66.2, 86.6), _ghostnets("ghostnet_050")),
            PaperRow("MobileNetV1 0.5x", 1.3, 150, (63.3, 84.9)),
            PaperRow("MobileNetV2 0.6x", 2.2, 141, (66.7, None)),
            PaperRow("ShuffleNetV1 1.0x (g = 3)", 1.9, 138, (67.8, 87.7)),
            PaperRow("ShuffleNetV2 1.0x", 2.3, 146, (69.4, 88.9), _torchvision("shufflenet_v2_x1_0")),
            PaperRow("MobileNetV3-Large 0.75x", 4.0, 155, (73.3, None)),
            PaperRow("GhostNet 1.0x", 5.2, 141, (73.9, 91.4), _ghostnets("ghostnet_100")),
            PaperRow("MobileNetV2 1.0x", 3.5, 300, (71.8, 91.0), _torchvision("mobilenet_v2")),
            PaperRow("ShuffleNetV2 1.5x", 3.5, 299, (72.6, 90.6), _torchvision("shufflenet_v2_x1_5")),
            PaperRow("FE-Net 1.0x", 3.7, 301, (72.9, None)),
            PaperRow("FBNet-B", 4.5, 295, (74.1, None)),
            PaperRow("ProxylessNAS", 4.1, 320, (74.6, 92.2)),
            PaperRow("MnasNet-A1", 3.9, 312, (75.2, 92.5)),
            PaperRow("MobileNetV3-Large 1.0x", 5.4, 219, (75.2, None), _torchvision("mobilenet_v3_large")),
            PaperRow("GhostNet 1.3x", 7.3, 226, (75.7, 92.7), _ghostnets("ghostnet_130")),
        ),
    ),
    PaperTable(
        "Detection on COCO: backbones of RetinaNet and Faster R-CNN",
        f"{V1_PAPER}, table 8",
        ("RetinaNet mAP", "Faster R-CNN mAP"),
        224,
        (
            PaperRow("MobileNetV2 1.0x", None, 300, (26.7, 27.5), _torchvision("mobilenet_v2")),
            PaperRow("MobileNetV3 1.0x", None, 219, (26.4, 26.9), _torchvision("mobilenet_v3_large")),
            PaperRow("GhostNet 1.1x", None, 164, (26.6, 26.9), _ghostnets("ghostnet_100", width=1.1)),
        ),
        "MACs are those of the classifier at 224 x 224; this package has no detectors.",
    ),
    PaperTable(
        "GhostNetV2 on ImageNet",
        "official README; timm pull request 1916",
        ("top-1",),
        224,
        (
            PaperRow("GhostNetV2 1.0x", None, 167, (75.3,), _ghostnets("ghostnetv2_100")),
            PaperRow("GhostNetV2 1.3x", None, 269, (76.9,), _ghostnets("ghostnetv2_130")),
            PaperRow("GhostNetV2 1.6x", None, 399, (77.8,), _ghostnets("ghostnetv2_160")),
        ),
    ),
    PaperTable(
        "GhostNetV3 on ImageNet",
        "arXiv 2404.11202, abstract (1.3x: top-1 and MACs); the iFormer paper, which quotes it (the rest)",
        ("top-1",),
        224,
        (
            PaperRow("GhostNetV3 1.0x", 6.1, 170, (77.1,), _ghostnets("ghostnetv3_100")),
            PaperRow("GhostNetV3 1.3x", 8.9, 269, (79.1,), _ghostnets("ghostnetv3_130")),
            PaperRow("GhostNetV3 1.6x", 12.3, 400, (80.4,), _ghostnets("ghostnetv3_160")),
        ),
        "Counted after merging the branches.",
    ),
    PaperTable(
        "G-Ghost RegNetX on ImageNet",
        "arXiv 2201.03297, official README",
        ("top-1",),
        224,
        (
            PaperRow("G-Ghost-RegNetX-3.2GF", 10.5, 1800, (77.8,), _ghostnets("g_ghost_regnetx_032")),
            PaperRow("G-Ghost-RegNetX-4.0GF", 15.7, 2200, (78.6,), _ghostnets("g_ghost_regnetx_040")),
            PaperRow("G-Ghost-RegNetX-8.0GF", 24.6, 4200, (79.0,), _ghostnets("g_ghost_regnetx_080")),
            PaperRow("G-Ghost-RegNetX-16.0GF", 32.4, 9000, (79.9,), _ghostnets("g_ghost_regnetx_160")),
        ),
        "Each network is named after the RegNetX that it replaces.",
    ),
)
