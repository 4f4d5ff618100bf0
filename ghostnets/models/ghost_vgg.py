"""Ghost-VGG: the VGG-16 of the CIFAR-10 experiments with Ghost modules in place of its convolutions.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020 (arXiv 1911.11907), tables 3 to 5. The network is
configuration D of Simonyan and Zisserman (arXiv 1409.1556) with batch normalisation and two linear layers at the end,
512 -> 512 -> classes, in place of three.

In millions, published and computed; computed multiply-adds with and without the linear layer of 512 x 512::

     s  d    parameters        multiply-adds
    -----  --------------  -----------------------
     1  -   15.0   14.99    313   313.46   313.20
     2  1    7.6    7.63    157   157.00   156.74
     2  3    7.7    7.65    158   158.11   157.85
     2  5    7.7    7.68    160   160.32   160.06
     2  7    7.7    7.73    163   163.64   163.38
     3  3    5.2    5.22    107   107.24   106.98
     4  3    4.0    3.98     80    80.43    80.17
     5  3    3.3    3.27     65    65.67    65.40

The parameters agree only with that layer. The multiply-adds, rounded, agree only without it (the paper seems to count
convolutions alone), and only if the first convolution is a Ghost module too.
"""

from typing import Any

from torch import Tensor, nn

from ghostnets.layers import GhostModule
from ghostnets.models.features import FeatureLevel
from ghostnets.models.network import CIFAR10, Dilation, Network, Variant
from ghostnets.models.recompute import is_scripting

__all__ = ["STAGES", "VARIANTS", "GhostVGG"]

STAGES: tuple[tuple[int, ...], ...] = (
    # output channels of each 3x3 convolution; input at 32
    (64, 64),  # ............ 32 x 32
    (128, 128),  # .......... 16 x 16
    (256, 256, 256),  # .....  8 x 8
    (512, 512, 512),  # .....  4 x 4
    (512, 512, 512),  # .....  2 x 2
)
HEAD_CHANNELS = 512


class GhostVGG(Network):
    """Ghost-VGG-16: images (N, in_chans, H, W) -> logits (N, num_classes), any H and W from 1.

    ::

        blocks.0 ─> max pool, blocks.1 ─> ... ─> max pool, blocks.4 ─> max pool ─> global average pool
          ─> fc (512), ReLU ─> dropout ─> classifier

    Args:
        num_classes: Number of classes; 0 removes the classifier (the output is the features of the head).
        in_chans: Number of input channels.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        output_stride: 32, 16 or 8, as in ``GhostNet``: later poolings are replaced by dilation.
        ratio: Ratio s of all Ghost modules; 1 gives the plain VGG-16.
        cheap_kernel_size: Kernel size d of all cheap operations.
        ghost_stem: Whether the first convolution is a Ghost module too. With a plain one, the last column of the table
            above is 158.44, 107.73, 81.06 and 66.33 for s = 2 to 5; the last three differ from the published values.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    head_path = ("global_pool", "fc", "act", "drop", "classifier")
    has_linear_head = True

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        output_stride: int = 32,
        ratio: int = 2,
        cheap_kernel_size: int = 3,
        ghost_stem: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate, output_stride=output_stride)
        resolution = Dilation(output_stride)
        blocks: list[nn.Sequential] = []
        levels: list[FeatureLevel] = []
        in_channels = in_chans
        for stage, widths in enumerate(STAGES):
            layers: list[nn.Module] = [_pool(resolution)] if stage else []
            for out_channels in widths:
                is_plain_stem = not blocks and not layers and not ghost_stem
                layers.append(
                    GhostModule(
                        in_channels,
                        out_channels,
                        kernel_size=3,
                        ratio=1 if is_plain_stem else ratio,
                        cheap_kernel_size=cheap_kernel_size,
                        dilation=resolution.dilation,
                    )
                )
                in_channels = out_channels
            blocks.append(nn.Sequential(*layers))
            levels.append(FeatureLevel(in_channels, resolution.stride, f"blocks.{stage}"))
        self.blocks = nn.Sequential(*blocks)
        self.feature_levels = self.timm_levels = tuple(levels)
        self.pool = _pool(resolution)
        self.path = (*(f"blocks.{stage}" for stage in range(len(STAGES))), "pool")

        self.num_features = in_channels
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.num_features, HEAD_CHANNELS)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(drop_rate)
        self.head_features = HEAD_CHANNELS
        self.classifier: nn.Module
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last feature map: (N, in_chans, H, W) -> (N, num_features, ceil(H / 32), ceil(W / 32))."""
        if self.grad_checkpointing and not is_scripting():
            return self.recompute_features(x)
        return self.pool(self.blocks(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits (N, num_classes) from the last feature map; features (N, 512) if ``pre_logits``."""
        x = self.act(self.fc(self.global_pool(x).flatten(1)))
        return x if pre_logits else self.classifier(self.drop(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"blocks": [(r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)", None), (r"^fc", (99999,))]}


def _pool(resolution: Dilation) -> nn.Module:
    """2 x 2 max pooling of stride 2, or of stride 1 and dilated if the output stride is reached.

    Output sizes round up, so that no pixel of an odd map is dropped and a map of one pixel is kept. The padding does
    that for any size without a condition on it, which ``ceil_mode`` has and exports with dynamic sizes reject.
    """
    d = resolution.dilation
    stride = 1 if resolution.next(2)["atrous"] else 2
    return nn.Sequential(nn.ConstantPad2d((0, d, 0, d), float("-inf")), nn.MaxPool2d(2, stride, dilation=d))


REMARK = (
    "the published MACs exclude the linear layer of 512 x 512 (0.262 M), the published parameters include it; the first"
    " convolution is a Ghost module too; models/ghost_vgg.py compares every s and d"
)
VARIANTS: dict[str, Variant] = {
    #                                params   MACs   top-1; published params, MACs (table 5)
    "vgg16": Variant({"ratio": 1}, 14.9867, 313.46, 93.6, 15.0, 313.0, CIFAR10),
    "ghost_vgg16": Variant({"ratio": 2}, 7.6505, 158.11, 93.7, 7.7, 158.0, CIFAR10, REMARK),
}
