"""Every module of the networks has a node; any other raises an error that names it."""

from collections import Counter

import pytest
import torch
from graphs import EVERY_GRAPH
from torch import nn

from ghostnets.engine.planner import make_plan
from ghostnets.errors import EngineError
from ghostnets.layers import SqueezeExcite
from ghostnets.models import create_model


def test_ghostnet_node_counts():
    model = create_model("ghostnet_100")
    plan = make_plan(model)
    kinds = Counter(node["kind"] for node in plan.nodes)
    assert kinds == {
        "stem": 1,
        "ghost": 32,
        "depthwise": 4 + 5,  # stride-2 bottlenecks, and shortcuts that change the shape (one more: 80 to 112)
        "conv": 5 + 1,
        "squeeze_excite": 7,
        "pool": 1,
        "linear": 2,
    }
    assert (plan.in_channels, [plan.layouts[output].out_channels for output in plan.outputs]) == (3, [1000])
    assert {node["name"] for node in plan.nodes if node["kind"] == "squeeze_excite"} == {
        name for name, module in model.named_modules() if isinstance(module, SqueezeExcite)
    }
    assert sum(tensor.size for name, tensor in plan.tensors.items() if "weight" in name) == sum(
        p.numel() for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1
    )


def test_v2_and_v3_gates():
    for name in ("ghostnetv2_050", "ghostnetv3_050"):
        plan = make_plan(create_model(name))
        assert sum("gate" in node for node in plan.nodes) == 14  # all bottlenecks but the first two
        assert sum(node["kind"] == "average" for node in plan.nodes) == 14


def test_make_plan_does_not_change_the_network():
    model = create_model("ghostnetv3_050").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    make_plan(model)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("path", "module", "named"),
    [
        ("blocks.3.0.se", nn.Hardswish(), "blocks.3.0.se (Hardswish"),
        ("blocks.1.0", nn.ConvTranspose2d(16, 24, 1), "blocks.1.0 (ConvTranspose2d"),
        ("blocks.2.0.ghost1.primary_conv.2", nn.Hardswish(), "blocks.2.0.ghost1.primary_conv.2 (Hardswish"),
        ("blocks.2.0.ghost2.cheap_operation.0", nn.Conv2d(12, 12, 2, groups=12), "cheap_operation.0 (Conv2d"),
        ("conv_stem", nn.Conv2d(3, 16, 3, 2, 1, padding_mode="reflect"), "conv_stem (Conv2d"),
        ("global_pool", nn.AdaptiveMaxPool2d(1), "global_pool (AdaptiveMaxPool2d"),
        ("act1", nn.GELU(), "act1 (GELU"),
    ],
)
def test_unsupported_module_is_named(path: str, module: nn.Module, named: str):
    model = create_model("ghostnet_100")
    model.set_submodule(path, module)
    with pytest.raises(EngineError, match="the engine has no node for") as error:
        make_plan(model)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("name", "path", "module", "named"),
    [
        ("ghost_resnet18", "stem.3", nn.AvgPool2d(3, 2, 1), "stem.3 (AvgPool2d"),
        ("ghost_resnet18", "blocks.0.0.act", nn.GELU(), "blocks.0.0.act (GELU"),
        ("ghost_resnet18", "stem.3", nn.MaxPool2d(3, 2, 1, ceil_mode=True), "stem.3 (MaxPool2d"),
        ("g_ghost_regnetx_002", "layer3.cheap_relu", nn.GELU(), "layer3 (GGhostStage"),
        ("g_ghost_regnetx_002", "layer1.0.conv2", nn.Conv2d(24, 24, 3, 2, 1, 2, groups=3), "layer1.0.conv2 (Conv2d"),
        ("ghostnet_100_d_li14", "features.5.conv.2", nn.GELU(), "features.5.conv.2 (GELU"),
        ("vgg16", "fc", nn.Bilinear(512, 512, 512), "fc (Bilinear"),
    ],
)
def test_unsupported_module_of_another_network_is_named(name: str, path: str, module: nn.Module, named: str):
    model = create_model(name)
    model.set_submodule(path, module)
    with pytest.raises(EngineError, match="the engine has no node for") as error:
        make_plan(model)
    assert named in str(error.value)


@pytest.mark.parametrize("name", EVERY_GRAPH)
def test_every_network_has_a_plan(name: str):
    with torch.device("meta"):
        model = create_model(name)
    plan = make_plan(model.to_empty(device="cpu"))
    assert [plan.layouts[output].out_channels for output in plan.outputs] == [model.num_classes]


def test_network_without_convolution_raises():
    with pytest.raises(EngineError, match="cannot compile the network: it has no convolution"):
        make_plan(nn.Sequential(nn.Flatten(), nn.Linear(3, 3)))


def test_level_before_normalisation_is_rejected():
    with pytest.raises(EngineError, match="the map of conv_stem is before normalisation"):
        make_plan(create_model("ghostnet_050", features_only=True, like="timm"))
    backbone = create_model("ghostnet_050", features_only=True, like="timm", out_indices=4)
    assert len(make_plan(backbone).outputs) == 4
