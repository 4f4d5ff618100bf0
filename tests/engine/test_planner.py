"""Every module of the networks has a node, and every other one is named in the error."""

from collections import Counter

import pytest
import torch
from torch import nn

from ghostnets.engine.planner import make_plan
from ghostnets.errors import EngineError
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


def test_the_nodes_of_ghostnet():
    model = create_model("ghostnet_100")
    plan = make_plan(model)
    kinds = Counter(node["kind"] for node in plan.nodes)
    assert kinds == {
        "stem": 1,
        "ghost": 32,
        "depthwise": 4 + 5,  # stride-2 bottlenecks, and shortcuts that change the shape (one more: 80 to 112)
        "pointwise": 5 + 1,
        "squeeze_excite": 7,
        "pool": 1,
        "linear": 2,
    }
    assert (plan.in_channels, plan.num_outputs) == (3, 1000)
    assert sum(tensor.size for name, tensor in plan.tensors.items() if "weight" in name) == sum(
        p.numel() for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1
    )


def test_the_gates_of_v2_and_v3():
    for name in ("ghostnetv2_050", "ghostnetv3_050"):
        plan = make_plan(create_model(name))
        assert sum("gate" in node for node in plan.nodes) == 14  # all bottlenecks but the first two
        assert sum(node["kind"] == "average" for node in plan.nodes) == 14


def test_the_network_is_left_alone():
    model = create_model("ghostnetv3_050").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    make_plan(model)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("path", "module", "named"),
    [
        ("blocks.3.0.se", nn.Hardswish(), "blocks.3.0.se (Hardswish"),
        ("blocks.1.0", nn.Conv2d(16, 24, 1), "blocks.1.0 (Conv2d"),
        ("blocks.2.0.ghost1", GhostModule(24, 72, kernel_size=3), "blocks.2.0.ghost1.primary_conv.0 (Conv2d"),
        ("conv_stem", nn.Conv2d(3, 16, 3, 2, 1, padding_mode="reflect"), "conv_stem (Conv2d"),
        ("global_pool", nn.AdaptiveMaxPool2d(1), "global_pool (AdaptiveMaxPool2d"),
        ("act1", nn.GELU(), "act1 (GELU"),
    ],
)
def test_an_unknown_module_is_named(path: str, module: nn.Module, named: str):
    model = create_model("ghostnet_100")
    model.set_submodule(path, module)
    with pytest.raises(EngineError, match="the engine has no node for") as error:
        make_plan(model)
    assert named in str(error.value)


def test_an_unknown_network_and_mixed_ratios():
    class Other(nn.Module):
        pass

    with pytest.raises(EngineError, match=r"no node for the network \(Other"):
        make_plan(Other())
    model = create_model("ghostnet_100")
    model.set_submodule("blocks.2.0.ghost1", GhostModule(24, 72, ratio=3))
    with pytest.raises(EngineError, match=r"different ratios \(\[2, 3\]\)"):
        make_plan(model)
