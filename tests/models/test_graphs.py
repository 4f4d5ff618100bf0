"""Scripting, export and compilation depend only on a network's graph, not on its width and depth.

So the smallest network of every graph is tested here, and with ``-m slow`` all the others.
"""

import pytest
import torch
from conftest import assert_same, enliven
from torch.export import Dim

from ghostnets.models import Network, create_model, list_models

GRAPHS = (
    "g_ghost_regnetx_002", "ghost_resnet18", "ghost_resnet20", "ghost_resnet50", "ghost_vgg16", "ghostnet_050",
    "ghostnet_100_d_li14", "ghostnet_100_d_li14_revised", "ghostnetv2_050", "ghostnetv3_050", "resnet20", "vgg16",
)  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in GRAPHS else pytest.mark.slow) for name in list_models()],
)
def model(request) -> Network:
    """Network in evaluation mode whose output depends on the input; tests must not modify it."""
    torch.manual_seed(0)
    return enliven(create_model(request.param, num_classes=3))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_script(model: Network):
    scripted = torch.jit.script(model)
    with torch.inference_mode():
        for size in [(64, 64), (33, 47)]:
            x = torch.randn(2, 3, *size)
            assert_same(scripted(x), model(x))


def test_export_with_dynamic_batch_and_size(model: Network):
    dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    side = 4 * model.feature_levels[-1].stride
    exported = torch.export.export(model, (torch.randn(2, 3, side, side + 8),), dynamic_shapes=dynamic).module()
    with torch.inference_mode():
        for shape in [(1, 3, side + 1, 2 * side), (3, 3, 2 * side, side - 8)]:
            x = torch.randn(*shape)
            assert_same(exported(x), model(x))


def test_compiles_as_one_graph(model: Network):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert_same(compiled(x), model(x))
    torch.compiler.reset()  # what is compiled holds the network in memory


def test_every_network_shares_layers_with_a_tested_graph():
    def layers(name: str) -> frozenset[str]:
        with torch.device("meta"):
            return frozenset(type(module).__name__ for module in create_model(name).modules())

    assert {layers(name) for name in list_models()} == {layers(name) for name in GRAPHS}
