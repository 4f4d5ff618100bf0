"""Scripting, export, compilation and distributed training of the smallest network of every graph.

Networks are made shallower where possible (``graphs.GRAPHS``).
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import assert_same, enliven
from graphs import EVERY_GRAPH, GRAPHS, create_shallow
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.export import Dim
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.feature_extraction import create_feature_extractor

from ghostnets.models import Backbone, Network, create_model, ghostnetv3, list_models


@pytest.fixture(scope="module", params=EVERY_GRAPH)
def model(request) -> Network:
    """Network in evaluation mode whose output depends on the input; tests must not modify it."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnetv3, "BRANCHES", 2)  # of three that are alike
        return enliven(create_shallow(request.param, num_classes=3))


@pytest.fixture(scope="module")
def process_group(tmp_path_factory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("group") / "store"
    init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    destroy_process_group()


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


@pytest.mark.parametrize("training", [False, True])
def test_fx_traces_as_one_graph_for_any_size(model: Network, training: bool):
    network = copy.deepcopy(model).train(training)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    traced = torch.fx.symbolic_trace(network)
    for shape in [(2, 3, 64, 64), (3, 3, 47, 65)] + ([] if training else [(1, 3, 1, 17)]):
        x = torch.randn(*shape)
        with torch.no_grad():
            assert torch.equal(traced(x), network(x))


def test_distributed_training_has_no_unused_parameters(model: Network, process_group: None):
    """DDP raises at the second step if a parameter received no gradient in the first."""
    network = DistributedDataParallel(copy.deepcopy(model).train())
    for _ in range(2):
        network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["ghostnetv2_050", "g_ghost_regnetx_002"])
def test_torchvision_extracts_features(name: str):
    network = create_model(name, num_classes=3).eval()
    level = network.feature_levels[2]
    extractor = create_feature_extractor(network, {level.module: "map"})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(extractor(x)["map"], Backbone(network, out_indices=(2,))(x)[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_script_of_backbone_has_names_of_backbone(model: Network):
    backbone = Backbone(model).eval()
    inside = nn.Sequential(backbone)  # as in a detector
    names = inside.state_dict().keys()
    scripted = torch.jit.script(inside)
    assert scripted.state_dict().keys() == inside.state_dict().keys() == names
    with torch.inference_mode():
        for size in [(64, 64), (33, 47)]:
            x = torch.randn(2, 3, *size)
            for ours, expected in zip(scripted(x), backbone(x), strict=True):
                assert_same(ours, expected)


def test_g_ghost_compiles_in_training_with_changing_batch():
    torch.compiler.reset()
    network = create_model("g_ghost_regnetx_002", num_classes=3, **GRAPHS["g_ghost_regnetx_002"])
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for batch in (4, 5, 3, 1):
        before = network.layer3.merge[2].num_batches_tracked.item()
        compiled(torch.randn(batch, 3, 48, 48)).sum().backward()
        assert network.layer3.merge[2].num_batches_tracked.item() == before + (batch > 1)
    torch.compiler.reset()


def test_every_network_shares_layers_with_a_tested_graph():
    def layers(name: str, **arguments: Any) -> frozenset[str]:
        with torch.device("meta"):
            return frozenset(type(module).__name__ for module in create_model(name, **arguments).modules())

    assert {layers(name) for name in list_models()} == {layers(name, **GRAPHS[name]) for name in GRAPHS}
