"""int8: equal outputs after equalisation, sensitive layers, biases, training; steps judged on other images."""

import copy
import sys
from collections.abc import Collection, Sequence

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.compress import quantize
from ghostnets.compress.equalize import LayerPair, equalize, find_norms, find_pairs
from ghostnets.compress.fit import output_error, outputs_of
from ghostnets.compress.rounding import find_ranges, quantizable_layers, rounded, simulated
from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostModule
from ghostnets.measure import count

quantize_file = sys.modules["ghostnets.compress.quantize"]


class Inverted(nn.Module):
    """Two inverted bottlenecks with ReLU6 in the first one and ReLU in the second, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.bn = nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.bn2 = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project = nn.Conv2d(12, 8, 1)
        self.clip, self.relu, self.second = nn.ReLU6(), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2)
        self.pool, self.flatten, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.clip(self.bn(self.expand(x)))
        x = self.project(self.clip(self.bn2(self.depthwise(x))))
        x = self.relu(self.second(x))
        return self.classifier(self.flatten(self.pool(x)))


@pytest.fixture
def model() -> Inverted:
    torch.manual_seed(0)
    made = Inverted().eval()
    for norm in (made.bn, made.bn2):
        nn.init.uniform_(norm.running_var, 0.1, 2)
        nn.init.uniform_(norm.weight, 0.02, 3)
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 11, 9, generator=torch.Generator().manual_seed(1))


def test_find_pairs_gives_layers_with_homogeneous_layers_between(model: Inverted):
    assert find_pairs(model) == [
        LayerPair("expand", "bn", "depthwise", True),
        LayerPair("depthwise", "bn2", "project", True),
        LayerPair("project", "", "second", False),
        LayerPair("second", "", "classifier", False),
    ]
    assert find_norms(model) == {"expand": "bn", "depthwise": "bn2"}


def test_find_norms_finds_normalisations_with_an_activation_inside():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    assert find_norms(model) == {"0": "1", "2": "3"}


@pytest.mark.parametrize("between", [nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.Softmax(1)])
def test_find_pairs_rejects_activations_that_factors_change(between: nn.Module):
    assert find_pairs(nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.Conv2d(4, 4, 1))) == []


def test_find_pairs_rejects_maps_that_are_read_twice():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu()
            return y + self.b(y)

    assert find_pairs(Residual()) == []


def test_equalize_keeps_outputs_and_clipped_channels(model: Inverted, images: Tensor):
    before = copy.deepcopy(model)
    equalize(model, find_pairs(model), [images])
    with torch.no_grad():
        torch.testing.assert_close(model(images), before(images), rtol=1e-4, atol=1e-5)
        largest = before.clip(before.bn(before.expand(images))).amax((0, 2, 3))
        scale = before.bn.weight / model.bn.weight
        scaled = model.bn(model.expand(images)).amax((0, 2, 3))
    is_clipped = largest >= 5.7
    assert 0 < int(is_clipped.sum()) < 12
    torch.testing.assert_close(scale[is_clipped], torch.ones(int(is_clipped.sum())))
    assert float((scale[~is_clipped] - 1).abs().max()) > 0.1
    assert float(scaled[~is_clipped].max()) <= 5.7 + 1e-4


def test_rounded_has_256_levels_with_zero_among_them():
    values = torch.linspace(-2, 4, 5001)
    got = rounded(values, -1.0, 3.0)
    assert len(got.unique()) == 256
    assert 0 in got
    inside = (values > -0.99) & (values < 2.99)
    assert float((got - values)[inside].abs().max()) <= 0.5 * 4 / 255 + 1e-6
    assert (float(got.min()), float(got.max())) == pytest.approx((-1, 3), abs=4 / 255)


def test_simulated_restores_the_network_and_matches_a_reference(model: Inverted, images: Tensor):
    before = copy.deepcopy(model.state_dict())
    ranges = find_ranges(model, [images], ["second"], "minmax")
    with torch.no_grad():
        x = model.project(model.clip(model.bn2(model.depthwise(model.clip(model.bn(model.expand(images)))))))
        assert ranges["second"] == pytest.approx((float(x.min()), float(x.max())))
        step = model.second.weight.flatten(1).abs().amax(1) / 127
        weight = (model.second.weight / step[:, None, None, None]).round() * step[:, None, None, None]
        second = nn.functional.conv2d(rounded(x, *ranges["second"]), weight, model.second.bias, stride=2)
        expected = model.classifier(second.relu().mean((2, 3)))
        with simulated(model, ranges):
            torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_ranges_of_percentiles_leave_out_rare_images():
    images = torch.linspace(-1, 2, 16 * 25).reshape(1, 1, 16, 25).repeat(5, 1, 1, 1)
    images[3] *= 100
    images[4] *= 3
    layer, half = nn.Sequential(nn.Conv2d(1, 1, 1)).eval(), nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)).eval()
    ranges = find_ranges(layer, images.split(2), ["0"], "percentile")
    assert ranges["0"] == pytest.approx((-4, 8))
    assert find_ranges(layer, images.split(2), ["0"], "minmax")["0"] == pytest.approx((-100, 200))
    assert find_ranges(half, images.split(2), ["1"], "percentile")["1"] == pytest.approx((0, 8))
    images[:3] = 0  # a map that only few images fill keeps its range
    assert find_ranges(layer, [images], ["0"], "percentile")["0"] == pytest.approx((-100, 200))


def test_an_image_counts_at_most_once_in_the_error_that_judges():
    expected = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])  # of variance 1
    got = expected + torch.tensor([[0.1, 0.2], [0, 0], [0, 0], [50, 0]])
    assert quantize_file._capped_error(got, expected) == pytest.approx((0.05 + 1) / 4)
    assert quantize_file._capped_error(got / 0, expected) == float("inf")


def test_simulated_passes_gradients_of_values_within_the_range():
    layer = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    layer[0].weight.data = torch.tensor([[1.0, 0.3]])
    x = torch.tensor([[0.4, 2.0]], requires_grad=True)
    with simulated(layer, {"0": (0.0, 1.0)}):
        layer(x).backward()
    weight = torch.tensor([1.0, round(0.3 * 127) / 127])
    torch.testing.assert_close(x.grad, (weight * torch.tensor([1.0, 0.0]))[None])
    torch.testing.assert_close(layer[0].weight.grad, torch.tensor([[102 / 255, 1.0]]))
    with pytest.raises(RuntimeError), simulated(layer, {"0": (0.0, 1.0)}):
        layer(torch.zeros(1, 3))
    assert dict(layer.named_parameters())["0.weight"] is layer[0].weight


def test_training_lowers_the_error_or_is_reverted(model: Inverted, images: Tensor):
    untrained, before = quantize(model, images, float_share=0)
    made, report = quantize(model, images, float_share=0, steps=60, lr=1e-4)
    assert report.steps == (*before.steps, "training")
    assert report.errors["training"] < 0.8 * min(before.errors.values())
    assert list(made.state_dict()) == list(model.state_dict())
    assert [*dict(made.named_parameters())] == [*dict(model.named_parameters())]
    reverted, report = quantize(model, images, float_share=0, steps=1, lr=1)
    assert report.errors == before.errors
    assert report.steps[-1].startswith("no training: the error would be ")
    assert all(torch.equal(value, untrained.state_dict()[key]) for key, value in reverted.state_dict().items())


def test_quantizable_layers_run_once_and_in_order(model: Inverted, images: Tensor):
    names = ["expand", "depthwise", "project", "second", "classifier"]
    assert quantizable_layers(model, images) == names
    twice = nn.Sequential(conv := nn.Conv2d(3, 3, 1), conv, nn.Conv2d(3, 2, 1))
    assert quantizable_layers(twice, images) == ["2"]


def test_quantize_lowers_the_simulated_error_and_keeps_the_network(model: Inverted, images: Tensor):
    with torch.no_grad():
        model.bn.weight[3] = 40  # a channel that the others' range does not fit
    before = copy.deepcopy(model.state_dict())
    made, report = quantize(model, images, float_share=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [list(made.state_dict()), type(made)] == [list(before), Inverted]
    assert report.images == (24, 8)
    assert report.float_layers == ()
    errors = list(report.errors.values())
    assert errors == sorted(errors, reverse=True)
    assert len(errors) > 1
    with torch.no_grad():  # not a fit to the images that judge
        torch.manual_seed(2)
        x = torch.randn(64, 3, 11, 9)
        assert output_error(made(x), model(x)) < 0.01
        error = [output_error(_run(network, images, x), model(x)) for network in (model, made)]
    assert error[1] < error[0]


def _run(network: nn.Module, images: Tensor, x: Tensor) -> Tensor:
    ranges = find_ranges(network, [images], quantizable_layers(network, x[:1]), "percentile")
    with simulated(network, ranges):
        return network(x)


def test_quantize_keeps_the_layer_that_int8_spoils_in_float(images: Tensor):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 1),
        nn.SiLU(),
        nn.Conv2d(8, 16, 3),
        nn.SiLU(),
        nn.Conv2d(16, 4, 3),
    ).eval()
    with torch.no_grad():
        model[0].weight[0] *= 500
        model[2].weight[:, 0] = 0
    made, report = quantize(model, images, float_share=0.3)
    assert report.float_layers == ("2",)
    assert report.sensitivity[1].layer == "2"
    assert report.errors["sensitive layers in float32"] < 0.2 * report.errors["plain"]
    assert report.float_share == pytest.approx(64 * 99 / sum(layer.macs for layer in report.sensitivity))
    assert made(images).shape == (32, 4, 7, 5)


def test_quantize_of_ghost_modules_corrects_biases(images: Tensor):
    torch.manual_seed(0)
    model = nn.Sequential(GhostModule(3, 16, kernel_size=3), GhostModule(16, 8), nn.AdaptiveAvgPool2d(1)).eval()
    _, report = quantize(model, images, float_share=0)
    assert [layer.layer for layer in report.sensitivity] == [
        *("0.primary_conv.0", "0.cheap_operation.0", "1.primary_conv.0", "1.cheap_operation.0"),
    ]
    assert "no equalisation: torch.fx finds no two layers with ReLU alone between them" in report.steps
    assert "bias correction" in report.errors


def test_steps_are_judged_by_the_given_int8(model: Inverted, images: Tensor):
    """A runtime whose error only grows: no step is taken; the engine: its error of the result is that of the report."""
    calls: list[tuple[str, ...]] = []

    def grow(network: nn.Module, batches: Sequence[Tensor], float_layers: Collection[str], x: Tensor) -> Tensor:
        assert sum(map(len, batches)) == 24
        calls.append(tuple(float_layers))
        return outputs_of(model, x) + len(calls)

    made, report = quantize(model, images, float_share=0.5, run_int8=grow)
    assert report.float_layers == calls[0] == ()
    assert report.float_share == 0
    assert list(report.errors) == ["plain"]
    assert all(step.startswith("no ") for step in report.steps)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in made.state_dict().items())
    made, report = quantize(model, images, float_share=0.5, run_int8=engine.run_int8)
    fitted, judging = [batch[torch.arange(len(batch)) % 4 > 0] for batch in images.split(16)], images[::4]
    got = torch.as_tensor(
        engine.compile(made, precision="int8", calibration=fitted, float_layers=report.float_layers)(judging)
    )
    assert min(report.errors.values()) == pytest.approx(output_error(got, outputs_of(model, judging)), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method is 'best'"),
        ({"float_share": 1.0}, "float_share is 1.0"),
        ({"steps": -1}, "steps is -1"),
        ({"images": torch.zeros(4, 3, 8, 8)}, "there are 4 images"),
        ({"model": nn.ReLU()}, "ReLU has no nn.Conv2d or nn.Linear"),
    ],
)
def test_invalid_arguments_raise(options: dict, message: str, model: Inverted, images: Tensor):
    arguments = {"model": model, "images": images, **options}
    with pytest.raises(ConfigurationError, match=message):
        quantize(**arguments)


def test_weights_that_are_computed_from_others_are_rejected(model: Inverted, images: Tensor):
    torch.nn.utils.parametrizations.weight_norm(model.second)
    with pytest.raises(ConfigurationError, match="the weights of second are computed from others"):
        quantize(model, images)
    torch.nn.utils.parametrize.remove_parametrizations(model.second, "weight")
    assert quantize(model, images)[1].sensitivity[3].layer == "second"


def test_layers_whose_input_is_passed_by_its_name_are_left_out(images: Tensor):
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(input=self.a(x).relu()).relu())

    _, report = quantize(Named(), images)
    assert [layer.layer for layer in report.sensitivity] == ["a", "c"]
    assert find_pairs(Named().eval()) == [LayerPair("b", "", "c", False)]


def test_share_in_float_is_that_of_all_multiply_adds(images: Tensor):
    """Layers that run twice are not quantised by themselves, but count."""
    torch.manual_seed(0)
    twice = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), twice, nn.SiLU(), twice, nn.SiLU(), nn.Conv2d(8, 2, 1)).eval()
    _, report = quantize(model, images, float_share=0.5)
    assert report.float_layers
    macs = {layer.layer: layer.macs for layer in report.sensitivity}
    assert report.float_share == pytest.approx(sum(map(macs.get, report.float_layers)) / count(model, (3, 11, 9)).macs)
