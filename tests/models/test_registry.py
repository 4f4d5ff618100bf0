"""What every network of the registry must do."""

import copy
import pickle

import pytest
import torch
from torch.export import Dim

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

    def test_takes_the_arguments_of_the_family(self, name: str):
        model = create_model(name, num_classes=3, in_chans=4, drop_rate=0.5)
        assert model.train()(torch.randn(2, 4, 40, 40)).shape == (2, 3)


# Widths of an architecture differ in numbers alone, and tracing takes seconds: one width of each is traced.
ARCHITECTURES = ["ghostnet_050", "ghostnetv2_050", "ghostnetv3_050", "ghostnet_100_printed"]


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestEveryArchitecture:
    def test_export_of_any_batch_and_size(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=3))
        dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        exported = torch.export.export(model, (torch.randn(2, 3, 192, 256),), dynamic_shapes=dynamic).module()
        for shape in [(2, 3, 192, 256), (1, 3, 225, 160), (3, 3, 128, 320)]:
            x = torch.randn(*shape)
            expected = model(x)
            atol = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=atol)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
    def test_script(self, name: str, randomize):
        model = randomize(create_model(name, num_classes=3))
        scripted = torch.jit.script(model)
        for size in [(64, 64), (33, 47), (8, 8)]:
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(scripted(x), model(x), rtol=1e-4, atol=1e-4)

    def test_compiles_as_one_graph(self, name: str, randomize):
        torch.compiler.reset()
        model = randomize(create_model(name, num_classes=3))
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in list_models() if "ratio" in model_arguments(name)])
def test_ratio_one_is_a_plain_network(name: str):
    plain = create_model(name, ratio=1, num_classes=3)
    assert not [key for key in plain.state_dict() if "cheap_operation" in key]
    assert plain.eval()(torch.randn(1, 3, 40, 40)).shape == (1, 3)


def test_every_architecture_is_traced():
    kinds = {type(create_model(name)) for name in ARCHITECTURES}
    assert kinds == {type(create_model(name)) for name in list_models()}


def test_names_are_sorted_and_include_the_fields():
    assert list_models() == sorted(list_models())
    assert {"ghostnet_050", "ghostnet_100", "ghostnet_130"} <= set(list_models())
