"""Networks that can be compressed without loss, every family of torchvision, and what is rejected."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from ghostnets.compress import analyse, apply_changes, ghostify, heal, quantize
from ghostnets.compress.budget import Choice
from ghostnets.compress.equalize import find_pairs
from ghostnets.compress.fit import fit_change
from ghostnets.compress.layer_inputs import LayerInputs
from ghostnets.compress.sites import Site, find_sites, trace
from ghostnets.compress.surgery import describe_change, merge_channels
from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostConv2d
from ghostnets.measure import count


class Small(nn.Module):
    """A convolution of every kind: strided, biased, expansion and projection around a depthwise one, dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(16, 40, 1), nn.BatchNorm2d(40), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(40, 40, 3, 1, 1, groups=40), nn.BatchNorm2d(40), nn.ReLU())
        self.project = nn.Sequential(nn.Conv2d(40, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.wide = nn.Conv2d(16, 36, 3, padding=1)
        self.dilated = nn.Conv2d(36, 24, 3, padding=2, dilation=2)
        self.head = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        x = F.relu(self.wide(x))
        return self.head(F.relu(self.dilated(x)).mean((2, 3)))


@pytest.fixture
def small(randomize) -> nn.Module:
    torch.manual_seed(0)
    return randomize(Small())


IMAGES = torch.randn(40, 3, 24, 20, generator=torch.Generator().manual_seed(0))


def test_find_sites_returns_neighbours_of_each_convolution():
    model = Small().eval()
    sites = find_sites(model, trace(model)[0])
    assert sites == [
        Site("stem.0", "stem.1", "relu6"),
        Site("expand.0", "expand.1", "relu", "project.0", ("expand.1", "depthwise.0", "depthwise.1")),
        Site("depthwise.0", "depthwise.1", "relu", "project.0", ("depthwise.1",)),
        Site("project.0", "project.1"),
        Site("wide", "", "relu", "dilated"),
        Site("dilated", "", "relu", "head"),
    ]


@pytest.mark.parametrize("budget", [0.8, 0.5])
def test_ghostify_meets_the_budget_and_keeps_the_model_unchanged(small: nn.Module, budget: float):
    before, x = copy.deepcopy(small.state_dict()), IMAGES
    expected = small(x).detach()
    made, report = ghostify(small, x, budget=budget)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert torch.equal(small(x), expected)
    assert made(x).shape == expected.shape
    assert not any(module.training for module in made.modules())
    assert report.macs == (count(small, (3, 24, 20)).macs, count(made, (3, 24, 20)).macs)
    assert report.macs[1] <= budget * report.macs[0]
    assert report.left_alone["depthwise.0"] == "has groups"
    changed = {change["conv"] for change in report.changes}
    assert changed | set(report.left_alone) == {name for name, m in small.named_modules() if isinstance(m, nn.Conv2d)}
    probes = [*range(8), *range(16, 24), *range(32, 40)]  # the first half of each batch
    variance = (expected[probes] - expected[probes].mean(0)).square().sum()
    error = (made(x[probes]).detach() - expected[probes]).square().sum() / variance
    assert report.output_error == pytest.approx(error.item(), rel=1e-3)


def test_changes_build_the_network_again(small: nn.Module):
    for arguments in ({"budget": 0.6}, {"ratio": 2}):
        made, report = ghostify(small, IMAGES, **arguments)
        assert all(module.training for module in apply_changes(Small().train(), report.changes).modules())
        again = apply_changes(Small().eval(), report.changes)
        again.load_state_dict(made.state_dict())
        assert torch.equal(again(IMAGES), made(IMAGES))
    assert any(isinstance(module, GhostConv2d) for module in made.modules())


def test_copied_channels_are_merged_without_loss(small: nn.Module):
    """20 of the 40 expanded channels, with their depthwise filters, are copies or multiples of others."""
    with torch.no_grad():
        for module in (small.expand[0], small.expand[1], small.depthwise[0], small.depthwise[1]):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim():
                    tensor[20:] = tensor[:20]
        small.expand[1].weight[30:] *= 1.5
        small.expand[1].bias[30:] *= 1.5
        small.depthwise[0].bias.zero_()
        small.depthwise[1].running_mean.zero_()
        small.depthwise[1].bias.zero_()
    analysis = analyse(small, IMAGES, layers=["expand.0"])
    measured = {entry.kind: entry for entry in analysis.sensitivity}
    assert measured["merge"].unexplained < 1e-3
    assert measured["merge"].damage < 1e-3
    _, report = analysis.convert({"expand.0": Choice("merge", 20)})
    assert report.output_error < 1e-3


@pytest.mark.parametrize("kind", ["ghost", "mixed ghost"])
def test_maps_that_are_ghosts_of_others_are_fitted_without_loss(kind: str):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(12, 8, 1))
    with torch.no_grad():
        if kind == "ghost":  # a filter of one map each
            net[1].weight[:6] = 0
            net[1].weight[6:] = 0
            for i in range(6):
                net[1].weight[i, i, 1, 1] = 1
                net[1].weight[6 + i, i] = torch.rand(3, 3)
                net[1].weight[6 + i, i, 1, 1] = 3
        else:
            net[1].weight[6:] = torch.einsum("gm,mihw->gihw", torch.randn(6, 6), net[1].weight[:6])
    net.eval()
    expected, made = net(IMAGES), copy.deepcopy(net)
    now, then = (LayerInputs(network, trace(net)[0], IMAGES.split(8)) for network in (made, net))
    fit_change(now, then, Site("1"), describe_change(Site("1"), kind, 6), torch.arange(6))
    assert isinstance(made[1], GhostConv2d)
    assert (made(IMAGES) - expected).abs().max() < 2e-3 * expected.abs().max()


class Shortcut(nn.Module):
    """A block without activations, whose output a linear function of its input can therefore correct."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand, self.project = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 14, 1), nn.Conv2d(14, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.norm(self.project(self.expand(x)))


def test_errors_of_a_shortcut_are_corrected_by_the_layer_that_is_added(randomize):
    torch.manual_seed(0)
    net = randomize(Shortcut())
    made, site = copy.deepcopy(net), find_sites(net, trace(net)[0])[1]
    with torch.no_grad():
        made.stem.weight *= 0.8
        made.stem.bias += 1
    now, then = (LayerInputs(network, trace(net)[0], IMAGES.split(8)) for network in (made, net))
    assert [now.find_shortcut(name)[0] for name in ("stem", "expand", "project")] == ["", "", "norm"]
    fit_change(now, then, site, describe_change(site, "merge", 9), torch.arange(9))
    expected = net(IMAGES)
    assert made.project.in_channels == 9
    assert (made(IMAGES) - expected).abs().max() < 5e-3 * expected.abs().max()


class Activated(nn.Module):
    """Convolutions with a SiLU after the normalisation, or inside of it, as timm's ``BatchNormAct2d`` has it."""

    def __init__(self, *, is_inside: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm1, self.norm2 = (
            BatchNormAct2d(16, act_layer=nn.SiLU) if is_inside else nn.BatchNorm2d(16) for _ in range(2)
        )
        self.act = nn.Identity() if is_inside else nn.SiLU()
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.first(x)))
        return self.head(self.act(self.norm2(self.second(x))).mean((2, 3)))


def test_ghosts_before_an_activation_inside_the_normalisation_are_fitted_as_before_one_after_it(randomize):
    torch.manual_seed(0)
    apart, inside = randomize(Activated(is_inside=False)), Activated(is_inside=True).eval()
    inside.load_state_dict(apart.state_dict())
    (made, report), (other, same) = (ghostify(network, IMAGES, ratio=2) for network in (apart, inside))
    assert [change["conv"] for change in report.changes] == ["first", "second"]
    assert same.output_error == pytest.approx(report.output_error, rel=1e-3)
    torch.testing.assert_close(other(IMAGES), made(IMAGES), rtol=1e-3, atol=1e-3)


def test_channels_before_a_linear_layer_that_is_added_are_merged():
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.shortcut = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 5), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            added = self.shortcut(x.mean((2, 3)))
            return added + self.head(F.relu(self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    made, report = ghostify(Added(), IMAGES, budget=0.5)
    assert [change["kind"] for change in report.changes] == ["merge"]
    assert made.head.in_features == report.changes[0]["channels"] <= 16
    assert report.output_error < 0.1


def permute(model: nn.Module, sites: list[Site]) -> nn.Module:
    """A copy of the network with all channels between two layers in another order: it must compute the same."""
    permuted = copy.deepcopy(model)
    for site in sites:
        conv = permuted.get_submodule(site.conv)
        if site.consumer and conv.groups == 1:
            order = torch.randperm(conv.out_channels)
            matrix = torch.zeros(len(order), len(order))
            matrix[order, torch.arange(len(order))] = 1
            change = describe_change(site, "merge", len(order))
            merge_channels(permuted, change, order, matrix, torch.zeros(len(order)))
    return permuted


FAMILIES = {
    "resnet18": 64,
    "mobilenet_v2": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    **dict.fromkeys(
        ("alexnet", "vgg11_bn", "resnext50_32x4d", "mobilenet_v3_small", "efficientnet_b0", "densenet121"), 96
    ),
    **dict.fromkeys(("regnet_y_400mf", "convnext_tiny", "googlenet", "mnasnet0_5", "efficientnet_v2_s"), 96),
    "inception_v3": 128,
}


def torchvision_network(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, num_classes=10, **more).eval()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "shufflenet_v2_x0_5" else pytest.mark.slow) for name in FAMILIES],
)
def test_torchvision_networks_are_converted_with_equal_shapes(name: str, randomize):
    size = FAMILIES[name]
    model = randomize(torchvision_network(name))
    x = torch.randn(4, 3, size, size)
    graph, reason = trace(model)
    assert reason == ""
    sites = find_sites(model, graph)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(
            permute(model, sites)(x), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )
    made, report = ghostify(model, x, budget=0.8)
    assert made(x).shape == expected.shape
    assert report.macs[1] <= 0.8 * report.macs[0]
    made.train()(x[:2].requires_grad_()).sum().backward() if name not in ("googlenet", "inception_v3") else None
    assert apply_changes(model, report.changes).load_state_dict(made.state_dict()).missing_keys == []


def test_ineligible_convolutions_are_reported_with_reasons():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(8, 8, 3, padding=1)
            self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.tied, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.other.weight = self.tied.weight
            self.few, self.free = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 32, 3)
            self.standardized = Standardized(32, 16, 3)
            self.pixel = nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.grouped(self.twice(self.twice(x)))
            if x.sum() > 0:  # cannot be traced
                x = -x
            x = self.standardized(self.free(self.few(self.other(self.tied(x)))))
            return self.pixel(x.mean((2, 3), keepdim=True))

    class Standardized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, (self.weight - self.weight.mean()) / self.weight.std())

    _, report = ghostify(Odd(), torch.randn(4, 8, 9, 9), ratio=2)
    assert [change["conv"] for change in report.changes] == ["free"]
    reasons = {
        "twice": "runs 2 times",
        "grouped": "has groups",
        "tied": "its weight is shared or parametrised",
        "other": "its weight is shared or parametrised",
        "few": "has 4 maps",
        "standardized": "Standardized is not linear in its weight and bias, channel by channel",
        "pixel": "its maps have one pixel",
    }
    assert report.left_alone == reasons
    assert report.notes[0].startswith("torch.fx cannot trace Odd")


def test_without_images_random_ones_are_used_and_noted(small: nn.Module):
    made, report = ghostify(small, budget=0.8, image_size=24)
    assert report.notes == ("fitted to random images, as none were given.",)
    assert made(IMAGES).shape == (40, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 1.0}, "budget is 1.0"),
        ({"ratio": 1}, "a ratio is 1"),
        ({"ratio": 2, "table": {"wide": 2}}, "both ratio and table"),
        ({"table": {"nothing": 2}}, "'nothing' is not a convolution of Small"),
        ({"table": {"wide": 2, "depthwise.0": 2}}, "'depthwise.0' of the table cannot be changed: has groups"),
        ({"table": {"wide": 2}, "layers": ["dilated"]}, "both table and layers are given"),
        ({"cheap_kernel_size": 4}, "must be odd"),
        ({"budget": 0.1, "layers": ["wide"]}, "changes of 1 convolutions end at"),
        ({"layers": ["depthwise.0"]}, "no convolution that can be changed"),
    ],
)
def test_arguments_out_of_range_are_rejected(small: nn.Module, arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        ghostify(small, IMAGES[:8], **arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"kind": "merge", "conv": "nothing"},
        {"kind": "merge", "conv": "wide", "chain": [], "consumer": "dilated", "channels": 99},
        {"kind": "ghost", "conv": "depthwise.0", "norm": "", "act": "", "intrinsic": 3},
        {"kind": "ghost", "conv": "wide", "norm": "", "act": "x", "intrinsic": 3, "mix": True, "cheap_kernel_size": 3},
    ],
    ids=str,
)
def test_changes_that_do_not_fit_are_rejected(change: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        apply_changes(Small(), [change])


def test_convolutions_before_standardised_ones_and_those_with_a_gain_of_zero_are_left_alone():
    class Standardized(nn.Conv2d):
        gain = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * F.conv2d(x, (self.weight - self.weight.mean()) / self.weight.std())

    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), Standardized(16, 16, 3))
    model[4].gain = 0.0
    with pytest.raises(ConfigurationError):  # a gain of zero gives maps of zeros, whatever the weight
        ghostify(model, torch.randn(8, 3, 12, 12), budget=0.6, layers=["4"])
    model[4].gain = 1.0
    _, report = ghostify(model, torch.randn(8, 3, 12, 12), budget=0.9)
    assert [change["conv"] for change in report.changes] == ["0"]
    assert report.left_alone["2"] == "4, which reads its maps, is not linear in its weight and bias, channel by channel"


class Tied(nn.Module):
    """An autoencoder whose decoder has the weight of the encoder's second convolution."""

    def __init__(self, *, traced: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.third, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        self.traced = traced

    def forward(self, x: Tensor) -> Tensor:
        if not self.traced and x.sum() > 1e9:
            return x
        x = F.conv_transpose2d(F.relu(self.second(F.relu(self.first(x)))), self.second.weight, padding=1)
        return self.last(F.relu(self.third(F.relu(x))))


@pytest.mark.parametrize("traced", [True, False])
def test_convolutions_whose_weights_other_code_reads_are_left_alone(traced: bool):
    torch.manual_seed(0)
    model = Tied(traced=traced).eval()
    made, report = ghostify(model, torch.randn(12, 3, 10, 10), ratio=2)
    assert report.left_alone["second"] == "other code reads its weight"
    assert {change["conv"] for change in report.changes} == {"first", "third"}
    assert made(torch.randn(2, 3, 10, 10)).shape == (2, 3, 10, 10)
    site = find_sites(model, trace(model)[0])[0]
    assert (site.conv, site.consumer) == ("first", "")  # narrowing the second one would change the decoder


COMPUTED = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    weight_norm,
    spectral_norm,
    lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("compute", COMPUTED)
def test_weights_that_are_computed_from_others_stay(compute: Callable[[nn.Module], nn.Module]):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    compute(model[2])
    compute(model[8])
    expected = model(IMAGES).detach()
    made, report = ghostify(model, IMAGES, budget=0.8)
    assert report.left_alone["2"] == "its weight is shared or parametrised"
    assert [site.consumer for site in find_sites(model, trace(model)[0])] == ["", "4", ""]
    assert torch.equal(model(IMAGES), expected)
    assert made(IMAGES).shape == expected.shape
    assert made[2].weight.shape == model[2].weight.shape


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        x = self.b(F.relu(self.a(x)))
        return x * scale if mask is None else x * mask


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.b(x.flip(1) if isinstance(x, Tensor) else x)


def test_graphs_have_the_defaults_of_further_arguments():
    torch.manual_seed(0)
    model = Optional().eval()
    made, report = ghostify(model, IMAGES, budget=0.8)
    assert report.notes == ()
    assert [(change["kind"], change["conv"]) for change in report.changes] == [("merge", "a")]
    mask = torch.zeros(())
    assert torch.equal(made(IMAGES, mask), model(IMAGES, mask))


def test_graphs_that_compute_something_else_are_not_used():
    """Code that asks for tensors takes another way while torch.fx traces it."""
    torch.manual_seed(0)
    _, report = ghostify(Asking().eval(), IMAGES, budget=0.9)
    assert report.notes == ("torch.fx traces another computation than that of Asking; channels are not merged.",)
    assert {change["kind"] for change in report.changes} == {"ghost"}


def test_normalisations_with_code_of_their_own_are_not_folded(randomize):
    class Scaled(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * super().forward(x) + 1

    model = randomize(nn.Sequential(nn.Conv2d(3, 16, 3), Scaled(16), nn.ReLU(), nn.Conv2d(16, 8, 3)))
    assert find_sites(model, trace(model)[0])[0] == Site("0")
    timm_norm = pytest.importorskip("timm").layers.BatchNormAct2d(16)
    model = randomize(nn.Sequential(nn.Conv2d(3, 16, 3), timm_norm, nn.Conv2d(16, 8, 3)))
    assert find_sites(model, trace(model)[0])[0] == Site("0", "1", "relu", "2", ("1",))


def test_images_of_a_generator_are_read_into_memory(small: nn.Module):
    made, report = ghostify(small, iter(IMAGES.split(16)), budget=0.8)
    again, expected = ghostify(small, IMAGES, budget=0.8)
    assert report.changes == expected.changes
    assert torch.equal(made(IMAGES), again(IMAGES))


class Returning(nn.Module):
    def __init__(self, choose: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.choose = nn.Conv2d(3, 8, 3), choose

    def forward(self, x: Tensor) -> Any:
        return self.choose(self.conv(x))


@pytest.mark.parametrize("function", [ghostify, quantize, lambda model, images: heal(model, model, images)])
@pytest.mark.parametrize(
    ("wrap", "images", "message"),
    [
        (nn.DataParallel, IMAGES, "DataParallel wraps a network; pass that network, model.module"),
        (lambda net: torch.compile(net), IMAGES, "OptimizedModule wraps a network; pass that network, model._orig_mod"),
        (torch.jit.script, IMAGES, "TorchScript, whose layers cannot be replaced"),
        (None, [(IMAGES, torch.zeros(40))], "pass the images alone"),
        (None, [], "the images are not a tensor"),
        (None, IMAGES[0], "the images are not a tensor"),
        (None, [IMAGES[:20], IMAGES[20:, :, :16]], "images of several sizes"),
        (None, IMAGES[:, :1], "does not run on images of shape \\(2, 1, 24, 20\\) and torch.float32"),
        (None, (255 * IMAGES).byte(), "does not run on images of shape \\(2, 3, 24, 20\\) and torch.uint8"),
        (None, torch.where(torch.arange(40)[:, None, None, None] == 39, torch.nan, IMAGES), "not a number"),
        (lambda _: Returning(lambda x: (x, x.mean())), IMAGES, "returns \\(2, 8, 22, 18\\), \\(\\) for 2 images"),
        (lambda _: Returning(lambda x: x / 0), IMAGES, "returns values that are not finite"),
    ],
)
def test_networks_and_images_of_other_kinds_are_rejected(small, wrap, images, message: str, function):
    with pytest.raises(ConfigurationError, match=message):
        function(wrap(small) if wrap else small, images)


@pytest.mark.parametrize(("end", "consumer"), [(-1, "4"), (2, "")])
def test_only_maps_that_are_flattened_altogether_are_read_by_a_linear_layer(end: int, consumer: str):
    pooled = nn.AdaptiveAvgPool2d(1 if end < 0 else (1, 12))  # (N, 12, 12) if only channels and rows are joined
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), pooled, nn.Flatten(1, end), nn.Linear(12, 5)).eval()
    assert find_sites(model, trace(model)[0])[0].consumer == consumer
    assert [pair.second for pair in find_pairs(model)] == ([consumer] if consumer else [])
