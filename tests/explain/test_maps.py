import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ghostnets.explain.maps import find_map_layers, observe_maps
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


def test_maps_are_observed_after_normalisation_and_activation():
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    second = [GhostModule(4, 6, act=False), nn.Identity(), nn.MaxPool2d(2)]
    model = nn.Sequential(*first, *second, nn.Conv2d(6, 1, 1), nn.Conv2d(1, 5, 4), nn.Flatten()).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        layers = find_map_layers(model, x[:1])
    # Left out: a single map, maps of one pixel, and the children of a Ghost module.
    assert [(layer.name, layer.kind, layer.output_module, layer.channels, layer.size) for layer in layers] == [
        ("0", "widening convolution", "2", 4, (8, 8)),
        ("3", "widening Ghost module", "4", 6, (8, 8)),
    ]
    seen = {}
    with torch.no_grad(), observe_maps(model, layers, lambda layer, maps: seen.update({layer.name: maps.clone()})):
        model(x)
        torch.testing.assert_close(seen["0"], model[:3](x))
        torch.testing.assert_close(seen["3"], model[:5](x))
    assert not any(module._forward_hooks for module in model.modules())


def test_in_place_addition_ends_layer():
    """torchvision's block: ``out = bn2(...); out += identity; relu(out)``."""
    layers = find_map_layers(resnet18().eval(), torch.randn(1, 3, 64, 64))
    outputs = {layer.name: layer.output_module for layer in layers}
    assert outputs["conv1"] == "relu"
    assert outputs["layer1.0.conv2"] == "layer1.0.bn2"
    # `relu` runs twice in a block, the second time on the sum; its hook would see both.
    assert outputs["layer1.0.conv1"] == "layer1.0.bn1"


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_050", "ghostnetv3_050"])
def test_find_map_layers_treats_ghost_module_as_one_layer(name: str):
    model = create_model(name).eval()
    layers = find_map_layers(model, torch.zeros(1, 3, 64, 64))
    names = [layer.name for layer in layers]
    assert "blocks.0.0.ghost1" in names
    assert not any("primary_conv" in name or "short_conv" in name or ".se." in name for name in names)
    assert "conv_stem" in names


def test_find_map_layers_skips_module_that_runs_twice():
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    assert find_map_layers(nn.Sequential(convolution, nn.ReLU(), convolution), torch.randn(1, 3, 4, 4)) == []
