"""Segmentation networks: shapes at any size, cost, backbones, heads, gradients."""

import pytest
import torch

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.measure import count
from ghostnets.models.names import SEGMENTER_NAMES
from ghostnets.models.segmentation import SEGMENTERS, create_segmenter, list_segmenters


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_cost_matches_the_table(name: str):
    with torch.device("meta"):  # only shapes are needed
        cost = count(create_segmenter(name), (3, 512, 512))
    assert cost.params / 1e6 == pytest.approx(SEGMENTERS[name].params, abs=0.005)
    assert cost.macs / 1e6 == pytest.approx(SEGMENTERS[name].macs, abs=0.05)


@pytest.mark.parametrize(
    ("backbone", "head", "output_stride"),
    [
        ("ghostnet_050", "lraspp", 16),
        ("ghostnetv2_100", "lraspp", 8),
        ("ghostnetv3_100", "aspp", 16),
        ("ghost_resnet18", "lraspp", 32),
        ("ghost_vgg16", "aspp", 8),
    ],
)
@torch.no_grad()
def test_any_backbone_and_odd_sizes_give_logits_at_the_size_of_the_image(backbone: str, head: str, output_stride: int):
    segmenter = create_segmenter(
        "ghostseg_050", backbone=backbone, num_classes=3, head=head, output_stride=output_stride, channels=20
    ).eval()
    images = torch.randn(1, 3, 77, 130)
    assert segmenter(images).shape == (1, 3, 77, 130)
    high = segmenter.backbone(images)[-1]
    assert high.shape[2:] == (-(-77 // output_stride), -(-130 // output_stride))


@pytest.mark.parametrize("head", ["lraspp", "aspp"])
def test_gradients_reach_all_parameters(head: str):
    torch.manual_seed(0)
    segmenter = create_segmenter("ghostseg_050", num_classes=3, head=head)
    segmenter(torch.randn(2, 3, 96, 64)).square().sum().backward()
    assert [name for name, p in segmenter.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dilation_rates_of_aspp_are_doubled_at_stride_8():
    dilations = {
        stride: [
            module.dilation[0]
            for module in create_segmenter("ghostseg_050", head="aspp", output_stride=stride).head.modules()
            if isinstance(module, torch.nn.Conv2d) and module.dilation[0] > 1
        ]
        for stride in (8, 16)
    }
    assert dilations == {8: [12, 24, 36], 16: [6, 12, 18]}


def test_invalid_arguments_raise():
    with pytest.raises(UnknownNameError, match=r"did you mean .*ghostseg_100"):
        create_segmenter("ghostseg_10")
    with pytest.raises(UnknownNameError, match="no model named 'nothing'"):
        create_segmenter("ghostseg_100", backbone="nothing")
    with pytest.raises(ConfigurationError, match="resnet20 has a last map at stride 4, not 16"):
        create_segmenter("ghostseg_100", backbone="resnet20")
    with pytest.raises(ConfigurationError, match="num_classes is 0"):
        create_segmenter("ghostseg_100", num_classes=0)
    with pytest.raises(ConfigurationError, match="head is 'unet'; it must be lraspp or aspp"):
        create_segmenter("ghostseg_100", head="unet")
    assert list_segmenters() == sorted(SEGMENTERS) == sorted(SEGMENTER_NAMES)
