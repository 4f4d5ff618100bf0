"""What every network of the registry must do."""

import copy
import pickle

import pytest
import torch

from ghostnets.measure import count
from ghostnets.models import create_model, list_models, model_arguments, model_entry


@pytest.mark.parametrize("name", list_models())
class TestEveryModel:
    def test_counts(self, name: str):
        with torch.device("meta"):
            cost = count(create_model(name), (3, 224, 224))
        variant = model_entry(name).variant
        assert cost.params / 1e6 == pytest.approx(variant.params, abs=6e-5)
        assert cost.macs / 1e6 == pytest.approx(variant.macs, abs=6e-3)

    def test_forward_of_odd_sizes(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=5, in_chans=2))
        for height, width in [(1, 1), (32, 32), (33, 47)]:
            assert model(torch.randn(2, 2, height, width)).shape == (2, 5)

    def test_every_parameter_gets_a_gradient(self, name: str):
        model = create_model(name, num_classes=5).train()
        model(torch.randn(2, 3, 64, 64)).square().sum().backward()
        assert [key for key, p in model.named_parameters() if p.grad is None] == []

    def test_pickle_and_deepcopy(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=3))
        x = torch.randn(1, 3, 32, 32)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)

    def test_channels_last_and_bfloat16(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=3))
        x = torch.randn(1, 3, 32, 32)
        expected = model(x)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
        assert model.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16

    def test_export(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=3))
        x = torch.randn(2, 3, 64, 64)
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in list_models() if "ratio" in model_arguments(name)])
def test_ratio_one_is_a_plain_network(name: str):
    plain = create_model(name, ratio=1, num_classes=3)
    assert not [key for key in plain.state_dict() if "cheap_operation" in key]
    assert plain.eval()(torch.randn(1, 3, 40, 40)).shape == (1, 3)


def test_names_are_sorted_and_include_the_fields():
    assert list_models() == sorted(list_models())
    assert {"ghostnet_050", "ghostnet_100", "ghostnet_130"} <= set(list_models())
