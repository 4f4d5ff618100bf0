"""The DFC gate of GhostNetV2: long-range attention by two separable convolutions at half the resolution.

Tang et al., "GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022 (arXiv 2211.12905). The paper
derives "decoupled fully connected" attention, along rows and then along columns; the published networks compute it with
1 x 5 and 5 x 1 depthwise convolutions, and so does this.
"""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DFCGate"]


class DFCGate(nn.Sequential):
    """Gate for the output of a Ghost module, from its input: (N, C_in, H, W) -> (N, C_out, H', W') in (0, 1).

    ::

        x ─> average pool 2x2 ─> conv k x k, BN ─> 1 x 5 depthwise, BN ─> 5 x 1 depthwise, BN ─> sigmoid ─> nearest

    The six layers keep their published names, ``short_conv.0`` to ``short_conv.5``. Two properties of the published
    networks, kept so that their weights mean the same: pooling drops the last row and column of an odd map (7 x 7 at
    224), and the gate is enlarged by the nearest neighbour.

    A side of one pixel cannot be halved; there it is left as it is, so that inputs below 33 pixels work (the published
    implementations fail on them).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: Of the first convolution, as the Ghost module's.
        stride: Of the first convolution, as the Ghost module's.
        dilation: Of the last two convolutions. Pooling is not dilated, so a network that trades stride for dilation
            computes this gate from other pixels than the strided one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1, dilation: int = 1
    ) -> None:
        d, c = dilation, out_channels
        super().__init__(
            nn.Conv2d(in_channels, c, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(c),
            nn.Conv2d(c, c, (1, 5), padding=(0, 2 * d), dilation=(1, d), groups=c, bias=False),
            nn.BatchNorm2d(c),
            nn.Conv2d(c, c, (5, 1), padding=(2 * d, 0), dilation=(d, 1), groups=c, bias=False),
            nn.BatchNorm2d(c),
        )

    def gate(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The gate for the input ``x`` of a Ghost module whose output has the size (H', W')."""
        height, width = x.shape[2:]
        pooled = F.avg_pool2d(x, (min(2, height), min(2, width)))
        return F.interpolate(self(pooled).sigmoid(), size=size, mode="nearest")
