"""Copies of networks are those of ``copy.deepcopy``."""

import copy

import pytest
import torch
from torch import nn

from ghostnets.layers.copying import copy_module
from ghostnets.models import create_model


class OwnCopy(nn.Module):
    def __deepcopy__(self, memo):
        return nn.Identity()


def test_copy_of_a_network_shares_nothing(randomize):
    model = randomize(create_model("ghostnetv3_050", width=0.2, num_classes=3)).train()
    model.classifier.weight.requires_grad_(False)
    made, expected = copy_module(model), copy.deepcopy(model)
    assert [(name, type(module), module.training) for name, module in made.named_modules()] == [
        (name, type(module), module.training) for name, module in expected.named_modules()
    ]
    assert not made.classifier.weight.requires_grad
    assert made.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(made.state_dict()[key], value)
        assert made.state_dict()[key].data_ptr() != value.data_ptr()
    for module, other in zip(made.modules(), model.modules(), strict=True):
        assert module is not other
        assert module.__dict__.keys() == other.__dict__.keys()
        assert not [name for name, value in vars(module).items() if type(value) is dict and value is vars(other)[name]]
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(made.eval()(x), expected.eval()(x))


def test_shared_modules_and_weights_hooks_and_own_copies_are_kept():
    layer = nn.Linear(2, 2)
    tied = nn.Linear(2, 2)
    tied.weight = layer.weight
    model = nn.Sequential(layer, layer, tied, OwnCopy(), nn.ModuleDict({"a": nn.ReLU()}), nn.Sequential())
    model.register_module("nothing", None)
    model.also = [layer]
    model.register_forward_hook(lambda *_: torch.zeros(1))
    made = copy_module(model)
    assert made[0] is made[1] is made.also[0]
    assert made[0] is not layer
    assert made[2].weight is made[0].weight
    assert type(made[3]) is nn.Identity
    assert made.nothing is None
    assert made[5] is not model[5]
    assert len(made._forward_hooks) == 1
    made.register_forward_pre_hook(lambda *_: None)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("keep", [False, True])
def test_memo_names_what_is_shared(keep: bool):
    layer = nn.Linear(2, 2)
    made = copy_module(layer, {id(layer.weight): layer.weight} if keep else None)
    assert (made.weight is layer.weight) == keep
    assert made.bias is not layer.bias
