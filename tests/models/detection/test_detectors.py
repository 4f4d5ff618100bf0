"""Detectors: shapes at any size, cost, backbones, gradients."""

import pytest
import torch
from torch import nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.layers import GhostBottleneck
from ghostnets.measure import count
from ghostnets.models.detection import DETECTORS, GhostPAN, create_detector, grid_points, list_detectors


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_cost_matches_the_table(name: str):
    with torch.device("meta"):  # only shapes are needed
        cost = count(create_detector(name), (3, 416, 416))
    assert cost.params / 1e6 == pytest.approx(DETECTORS[name].params, abs=0.005)
    assert cost.macs / 1e6 == pytest.approx(DETECTORS[name].macs, abs=0.05)


@pytest.mark.parametrize("backbone", ["ghostnet_050", "ghostnetv2_100", "ghostnetv3_100", "ghost_resnet18"])
@torch.no_grad()
def test_any_backbone_and_odd_sizes_give_a_prediction_for_each_point(backbone: str):
    detector = create_detector("ghostdet_050", backbone=backbone, num_classes=3, channels=24).eval()
    height, width = 77, 130
    out = detector(torch.randn(1, 3, height, width))
    assert out.shape == (1, len(grid_points(height, width, detector.strides)[0]), 3 + 4 * 8)
    assert detector.strides == (8, 16, 32, 64)


def test_scores_start_at_the_prior_and_gradients_reach_all_parameters():
    torch.manual_seed(0)
    detector = create_detector("ghostdet_050", num_classes=3)
    out = detector(torch.randn(2, 3, 96, 64))
    assert out[..., :3].sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    out.square().sum().backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_activations_of_nanodet_are_leaky_and_of_ghostdet_relu():
    kinds = {
        name: {type(m) for m in create_detector(name).modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)}
        for name in ("nanodet_plus_m", "ghostdet_100")
    }
    assert kinds == {"nanodet_plus_m": {nn.LeakyReLU}, "ghostdet_100": {nn.ReLU}}


def test_pan_sends_each_map_to_every_level():
    torch.manual_seed(0)
    pan = GhostPAN([4, 6, 8], 5, kernel_size=3).eval()
    assert sum(isinstance(module, GhostBottleneck) for module in pan.modules()) == 4
    maps = [torch.randn(1, c, s, s + 1, requires_grad=True) for c, s in ((4, 20), (6, 10), (8, 5))]
    outputs = pan(maps)
    assert [tuple(out.shape[1:]) for out in outputs] == [(5, 20, 21), (5, 10, 11), (5, 5, 6), (5, 3, 3)]
    for out in outputs:
        gradients = torch.autograd.grad(out.square().sum(), maps, retain_graph=True)
        assert all(gradient.any() for gradient in gradients)


def test_invalid_arguments_raise():
    with pytest.raises(UnknownNameError, match=r"did you mean .*ghostdet_100"):
        create_detector("ghostdet_10")
    with pytest.raises(UnknownNameError, match="no model named 'nothing'"):
        create_detector("ghostdet_100", backbone="nothing")
    with pytest.raises(ConfigurationError, match="no map at stride 32, only at 1, 2, 4, 8, 16"):
        create_detector("ghostdet_100", backbone="vgg16")
    with pytest.raises(ConfigurationError, match="num_classes is 0"):
        create_detector("ghostdet_100", num_classes=0)
    with pytest.raises(ConfigurationError, match="channels is 0; it must be an integer of at least 1"):
        create_detector("ghostdet_100", channels=0)
    assert list_detectors() == sorted(DETECTORS)
