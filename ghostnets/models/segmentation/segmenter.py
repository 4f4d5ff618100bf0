"""Semantic segmentation: a class for each pixel.

The heads are torchvision's: LR-ASPP (Howard et al., "Searching for MobileNetV3", arXiv 1905.02244, section 6.4) and
ASPP (Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", DeepLabV3, arXiv 1706.05587).
"""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HEADS", "SegmentationNetwork"]

HEADS = ("lraspp", "aspp")
ATROUS_RATES = (6, 12, 18)  # of ASPP at an output stride of 16; twice that at 8 (DeepLabV3, section 4.1)


class SegmentationNetwork(nn.Module):
    """Images (N, C, H, W), normalised -> logits (N, num_classes, H, W), for any H and W.

    ::

        backbone ─┬─ low  (stride s / 2) ──────────────────────────────> 1x1 to classes ─┐
                  └─ high (stride s) ─┬─> 1x1, BN, ReLU ─── x ─> upsample ─> 1x1 to classes + ─> upsample to H x W
                                      └─> mean, 1x1, sigmoid ┘                                      (lraspp)

        backbone ─── high (stride s) ──> ASPP: 1x1, three dilated 3x3, mean ─> 3x3 ─> 1x1 to classes ─> upsample (aspp)

    All resizing is bilinear, with the corners of the images aligned, not the centers of the corner pixels
    (``align_corners=False``).

    Args:
        backbone: Module that returns a list of maps, whose last is ``high`` and whose first is ``low``; with ``"aspp"``
            it returns ``high`` alone.
        in_channels: Channels of these maps.
        num_classes: Number of classes, at least 1.
        head: ``"lraspp"`` or ``"aspp"``.
        channels: Channels of the 1x1 convolution of LR-ASPP; ASPP has 256.
        output_stride: Stride s of the last map.
    """

    def __init__(
        self,
        backbone: nn.Module,
        in_channels: list[int],
        *,
        num_classes: int,
        head: str,
        channels: int,
        output_stride: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.backbone = num_classes, backbone
        self.has_low_map = head == "lraspp"
        if self.has_low_map:
            from torchvision.models.segmentation.lraspp import LRASPPHead

            self.head: nn.Module = LRASPPHead(in_channels[0], in_channels[-1], num_classes, channels)
        else:
            from torchvision.models.segmentation.deeplabv3 import DeepLabHead

            rates = [max(1, rate * 16 // output_stride) for rate in ATROUS_RATES]
            self.head = DeepLabHead(in_channels[-1], num_classes, rates)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers whose outputs are the classes."""
        return ("head.low_classifier", "head.high_classifier") if self.has_low_map else ("head.4",)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        logits = self.head({"low": maps[0], "high": maps[-1]} if self.has_low_map else maps[-1])
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
