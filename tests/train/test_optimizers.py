"""Parameter groups, and optimizers against formulas and timm."""

import pytest
import torch
from torch import nn

from ghostnets.models import create_model
from ghostnets.train import Recipe
from ghostnets.train.lamb import Lamb
from ghostnets.train.optimizers import OPTIMIZERS
from ghostnets.train.parameters import build_optimizer, set_learning_rate


def group_of(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict:
    (found,) = [g for g in optimizer.param_groups if any(p is weight for p in g["params"])]
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_has_every_weight_once_without_decay_on_vectors(name: str):
    network = create_model("ghostnet_050", width=0.1, num_classes=3)
    optimizer = build_optimizer(network, network, Recipe(optimizer=name, weight_decay=0.01))
    listed = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(listed) == len({id(p) for p in listed}) == len(list(network.parameters()))
    assert group_of(optimizer, network.conv_stem.weight)["weight_decay"] == 0.01
    assert group_of(optimizer, network.bn1.weight)["weight_decay"] == 0.0
    assert group_of(optimizer, network.classifier.bias)["weight_decay"] == 0.0
    everything = build_optimizer(network, network, Recipe(optimizer=name, weight_decay=0.01, decay_all=True))
    assert {g["weight_decay"] for g in everything.param_groups} == {0.01}


@pytest.mark.parametrize("model", ["ghostnet_050", "ghost_resnet20", "g_ghost_regnetx_002", "ghost_vgg16"])
def test_layer_decay_lowers_the_rate_towards_the_input(model: str):
    network = create_model(model, num_classes=3)
    optimizer = build_optimizer(network, network, Recipe(layer_decay=0.5))
    set_learning_rate(optimizer, 2.0)
    head = network.get_submodule(network.classifier_name)
    assert group_of(optimizer, head.weight)["lr"] == 2.0
    rates = []
    for stage in network.path:
        weights = list(network.get_submodule(stage).parameters())
        if weights:  # activations and poolings have none, and do not count
            assert len({group_of(optimizer, weight)["lr"] for weight in weights}) == 1
            rates.append(group_of(optimizer, weights[0])["lr"])
    assert rates == [2.0 * 0.5**after for after in range(len(rates), 0, -1)]


def test_rmsprop_matches_the_formula_of_ghostnetv2():
    weight = nn.Parameter(torch.tensor([[1.0]]))
    module = nn.Module()
    module.register_parameter("w", weight)
    optimizer = build_optimizer(module, create_model("resnet20"), Recipe(optimizer="rmsprop", weight_decay=0.0, lr=0.1))
    square = momentum = 0.0
    expected = 1.0
    for gradient in (0.3, -0.2, 0.5):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        momentum = 0.9 * momentum + gradient / (square**0.5 + 1e-3)
        expected -= 0.1 * momentum
        assert weight.item() == pytest.approx(expected, rel=1e-5)


def test_lamb_matches_timm():
    timm_lamb = pytest.importorskip("timm.optim.lamb", reason="timm is the peer")
    torch.manual_seed(0)
    shapes = [(5, 3), (7,), (4, 2, 3, 3), (6,)]
    ours, theirs = ([nn.Parameter(torch.randn(s)) for s in shapes] for _ in range(2))
    for a, b in zip(ours, theirs, strict=True):
        b.data.copy_(a.data)

    def groups(weights: list[nn.Parameter]) -> list[dict]:
        return [{"params": weights[::2], "weight_decay": 0.02}, {"params": weights[1::2], "weight_decay": 0.0}]

    mine = Lamb(groups(ours), lr=0.01)
    peer = timm_lamb.Lamb(groups(theirs), lr=0.01, max_grad_norm=None, eps=1e-6)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        peer.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
