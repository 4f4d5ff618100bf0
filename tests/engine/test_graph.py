"""Networks that are compiled by their graph: every operation, networks of torchvision and timm, what is rejected."""

from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from graphs import GRAPHS
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets import engine
from ghostnets.compress import apply_changes
from ghostnets.compress.sites import find_sites, trace
from ghostnets.compress.surgery import describe_change
from ghostnets.engine.graph_planner import make_graph_plan
from ghostnets.engine.planner import make_plan
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.layers import GhostConv2d, GhostModule
from ghostnets.models import create_model

BOUNDS = {"f32": 1e-5, "bf16": 0.03, "int8": 0.12}  # of the largest value


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give normalisations and classifiers values that no error passes unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.1, generator=generator)
    return model.eval()


def check(model: nn.Module, x: Tensor, precisions: Any = BOUNDS, **bounds: float) -> engine.Session:
    """Compare a compiled network with torch; returns the last session."""
    model.eval()
    with torch.no_grad():
        expected = model(x)
    expected = expected if isinstance(expected, list) else [expected]
    for precision in precisions:
        calibration = {"calibration": [x], "method": "minmax"} if precision == "int8" else {}
        session = engine.compile(model, precision=precision, threads=2, **calibration)
        found = session(x)
        for a, b in zip(found if isinstance(found, list) else [found], expected, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= (BOUNDS | bounds)[precision] * b.abs().max(), precision
    return session


class Operation(nn.Module):
    """A stem, one operation on its map of 20 channels, and a convolution; returns the map of the latter."""

    def __init__(self, operation: Any, channels: int, stem: int = 20) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.module = operation if isinstance(operation, nn.Module) else None
        self.function = operation
        self.last = nn.Conv2d(channels, 7, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        return [self.last(self.module(x) if self.module else self.function(x))]


def halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.cat([second, first * second, x[:, 3:9]], 1)


def halves_of_shuffled(x: Tensor) -> Tensor:
    first, second = shuffled(torch.cat([x[:, 2:], F.max_pool2d(x, 1), x[:, :2]], 1)).chunk(2, dim=1)
    return torch.cat([F.relu(first), second[:, :5]], 1)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def activated_groups(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.relu(x.view(n, -1, 5, h, w)).transpose(1, 2).reshape(n, c, h, w)


def gates_in_a_row(x: Tensor) -> Tensor:
    gate = x.mean((2, 3), keepdim=True)
    twice = x * gate.sigmoid() * F.hardsigmoid(gate)
    return F.max_pool2d(F.avg_pool2d(twice, 3, 1, 1), 3, 1, 1) + twice


def changes_in_place(x: Tensor) -> Tensor:
    same, copy = x, x.clone()
    F.relu(x, inplace=True)
    first, second = copy.chunk(2, dim=1)
    F.hardswish(second, inplace=True)
    x += same * 2
    return torch.cat([same, first.add_(second)], 1)


def changes_vector_in_place(x: Tensor) -> Tensor:
    pooled = F.adaptive_avg_pool2d(x, 1)
    pooled.flatten(1).relu_()
    return x * pooled


class SumWithSqueezeExcite(nn.Module):
    """A map, added to itself after squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(20, 6, 1), nn.ReLU(), nn.Conv2d(6, 20, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x) + x


class Joined(nn.Module):
    """Results of ReLU and values below 0 in one map, whose bytes have one range."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise, self.depthwise = nn.Conv2d(20, 20, 1), nn.Conv2d(20, 20, 3, padding=1, groups=20)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.pointwise(x), self.depthwise(x), x + self.depthwise(x), x]
        return torch.cat([*map(F.relu, parts), x], 1)


OPERATIONS = {
    **{
        f"conv {k}{o}": (nn.Conv2d(20, 20, k, **o), 20)  # type: ignore[arg-type]
        for k, o in [
            (3, {"padding": 0}),
            (2, {"stride": 2}),
            ((1, 5), {"padding": (0, 2)}),
            (3, {"padding": 2, "dilation": 2}),
            (3, {"groups": 4, "stride": 2, "padding": 1}),
            (5, {"padding": "same"}),
            (3, {"groups": 20, "padding": 0}),
            (5, {"groups": 20, "padding": 1, "stride": 2}),
            (2, {"groups": 20}),
            (3, {"groups": 20, "padding": (2, 0)}),
            (3, {"groups": 20, "padding": (2, 1), "dilation": (2, 1)}),
            (3, {"groups": 20, "padding": (1, 2), "dilation": (1, 2)}),
        ]
    },
    "depthwise with two outputs a channel": (nn.Conv2d(20, 40, 3, groups=20, padding=1), 40),
    **{
        type(a).__name__: (a, 20)
        for a in [
            nn.ReLU6(),
            nn.LeakyReLU(0.2),
            nn.Hardswish(),
            nn.Hardsigmoid(),
            nn.SiLU(),
            nn.Sigmoid(),
            nn.Hardtanh(0.0, 1.0),
        ]
    },
    "leaky ReLU after convolutions": (
        nn.Sequential(
            nn.Conv2d(20, 40, 1), nn.LeakyReLU(0.2), nn.Conv2d(40, 40, 3, 1, 1, groups=40), nn.LeakyReLU(0.1)
        ),
        40,
    ),
    "activation after a grouped convolution": (nn.Sequential(nn.Conv2d(20, 20, 3, 1, 1, groups=5), nn.SiLU()), 20),
    "normalisation alone": (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(20), nn.Hardswish()), 20),
    "max, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), 20),
    "max, ceil, padded": (nn.MaxPool2d(2, 2, 1, ceil_mode=True), 20),
    "max, ceil, stride above the size": (nn.MaxPool2d(1, 3, ceil_mode=True), 20),
    "average, ceil, padded": (nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=False), 20),
    "average": (nn.AvgPool2d(3, 1, 1), 20),
    "average without padding": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 20),
    "average 2": (nn.AvgPool2d(2), 20),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), 20),
    "nearest": (nn.Upsample(scale_factor=2), 20),
    "bilinear": (nn.Upsample(scale_factor=3, mode="bilinear"), 20),
    "bilinear, aligned": (nn.Upsample(size=(17, 9), mode="bilinear", align_corners=True), 20),
    "to the size of a map": (lambda x: F.interpolate(F.avg_pool2d(x, 2), size=x.shape[-2:], mode="bilinear"), 20),
    "chunk, multiply, concatenate, slice": (halves, 26),
    "shuffle": (shuffled, 20),
    "halves of a shuffled concatenation": (halves_of_shuffled, 25),
    "channel shuffle": (nn.ChannelShuffle(5), 20),
    "selection, twice": (
        lambda x: x.index_select(1, torch.arange(19, -1, -2)).index_select(1, torch.tensor([3, 3])),
        2,
    ),
    "activation of a concatenation": (lambda x: F.relu(torch.cat([x, F.max_pool2d(x, 1)], 1)), 40),
    "ReLU beside values below 0": (Joined(), 100),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 3)), 20),
    "pad channels": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 4)), 27),
    "constants": (lambda x: (x / 3 + 0.5) - torch.arange(20.0).reshape(1, 20, 1, 1) / 20, 20),
    "gate of one pixel": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), 20),
    "gate of a map that is read again": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid() + x, 20),
    "gates in a row": (gates_in_a_row, 20),
    "squeeze-and-excitation of a map that is read again": (SumWithSqueezeExcite(), 20),
    "activation of groups": (activated_groups, 20),
    "in place": (changes_in_place, 30),
    "vector in place": (changes_vector_in_place, 20),
    "sum with hard swish": (lambda x: F.hardswish(x + F.relu(x)), 20),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torch_in_every_precision(name: str):
    torch.manual_seed(0)
    operation, channels = OPERATIONS[name]
    for module in operation.modules() if isinstance(operation, nn.Module) else ():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # those of the table are drawn on import, from no seed
    # values of some units, since the inputs of SiLU are quantised from -8 on
    check(Operation(operation, channels), 4 * torch.randn(2, 3, 13, 10), int8=0.03)


def test_operations_on_large_maps_run_by_rows():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(20, 40, 1),
        nn.Hardswish(),
        nn.Conv2d(40, 40, 4, 2, 1, groups=40),
        nn.SiLU(),
        nn.Conv2d(40, 24, 1),
    ]
    model = Operation(nn.Sequential(*layers, nn.AvgPool2d(3, 1, 1), nn.Upsample(scale_factor=2, mode="bilinear")), 24)
    check(model, torch.randn(1, 3, 150, 130))


NETWORKS = ["mobilenet_v3_small", "shufflenet_v2_x0_5"]
SLOW_NETWORKS = [
    *(
        "resnet18",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "efficientnet_b0",
        "mnasnet0_5",
        "squeezenet1_1",
        "densenet121",
    ),
    *("regnet_y_400mf", "vgg11", "resnext50_32x4d"),
]


@pytest.mark.parametrize("name", [*NETWORKS, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NETWORKS]])
def test_torchvision_network_equals_torch(name: str, tmp_path: Any):
    torch.manual_seed(0)
    model = randomized(torchvision.models.get_model(name, weights=None))
    x = torch.randn(2, 3, 75, 64)
    session = check(model, x)
    session.save(tmp_path / "net.engine")
    assert torch.equal(engine.load(tmp_path / "net.engine", threads=2)(x), session(x))


def test_ghost_modules_of_different_ratios_equal_torch():
    torch.manual_seed(0)
    model = create_model("ghostnet_050", num_classes=5)
    model.set_submodule("blocks.2.0.ghost1", GhostModule(12, 36, ratio=3))
    x = torch.randn(2, 3, 65, 50)
    check(randomized(model), x)
    kinds = Counter(node["kind"] for node in make_plan(model).nodes)
    assert kinds["ghost"] == 32
    assert kinds["arrange"] == 0  # weights are arranged instead


def test_network_that_ghostify_changed_equals_torch():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=5, depths=(1, 1, 1))  # without changes, it is converted by its classes
    convs = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    common = {"kind": "ghost", "cheap_kernel_size": 3}
    changes = [
        {**common, "conv": conv, "norm": norm, "act": act, "intrinsic": module.out_channels // 3, "mix": mix}
        for (conv, module), norm, act, mix in zip(
            convs[1:4], norms[1:4], ("relu", "", "relu"), (False, True, True), strict=True
        )
    ]
    changed = apply_changes(model, changes)
    for name in (changes[0]["conv"], changes[1]["conv"]):
        ghost = changed.get_submodule(name)
        assert isinstance(ghost, GhostConv2d)
        ghost.order.copy_(torch.randperm(ghost.out_channels))
    check(randomized(changed), torch.randn(2, 3, 21, 18))
    nodes = make_plan(changed).nodes
    kinds = Counter(node["kind"] for node in nodes if node["name"].startswith(changes[0]["conv"]))
    assert kinds == {"conv": 1, "arrange": 2, "depthwise": 1}  # the order is folded, and ReLU is in the convolutions
    assert Counter(node["kind"] for node in nodes)["depthwise"] == 3


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "g_ghost_regnetx_002"])
def test_network_with_merged_channels_equals_torch(name: str):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **GRAPHS[name])
    sites = [site for site in find_sites(model.eval(), trace(model)[0]) if site.consumer]
    merged = [site for site in sites if model.get_submodule(site.conv).groups == 1]
    assert merged
    changes = [
        describe_change(site, "merge", max(1, model.get_submodule(site.conv).out_channels * 3 // 4)) for site in merged
    ]
    changed = apply_changes(model, changes)
    for module in changed.modules():  # the folded predictions are zero before weights are loaded
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    check(randomized(changed), torch.randn(2, 3, 33, 38), precisions=["f32"])


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_050", "ghostnetv3_050"])
def test_graph_of_a_registry_network_has_the_nodes_of_its_classes(name: str):
    model = create_model(name, num_classes=5)
    plans = [Counter(node["kind"] for node in make(model).nodes) for make in (make_plan, make_graph_plan)]
    assert plans[0] == plans[1]


def test_selections_of_a_concatenation_read_its_inputs():
    def select(x: Tensor) -> Tensor:
        both = torch.cat([x, F.max_pool2d(x, 1)], 1)
        return F.relu(both[:, :20]) + F.relu(both[:, 10:30])

    nodes = make_graph_plan(Operation(select, 20)).nodes
    assert [len(node["pooled"]) for node in nodes if node["kind"] == "arrange"] == [1, 2]


def test_features_and_logits_side_by_side():
    model = randomized(torchvision.models.squeezenet1_1(weights=None))
    with pytest.raises(ConfigurationError, match="does not end with a linear layer"):
        engine.compile(model, output="features")
    model, x = randomized(torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=6)), torch.randn(2, 3, 40, 40)
    features, logits, both = (
        engine.compile(model, output=output)(x) for output in ("features", "logits", "features+logits")
    )
    assert (features.shape, logits.shape) == ((2, 1024), (2, 6))
    assert torch.allclose(both, torch.cat([features, logits], 1), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.GELU(), r"cannot compile module: it calls gelu"),
        (nn.Conv2d(20, 20, 3, padding=1, padding_mode="reflect"), "cannot compile module: it pads by"),
        (nn.ConvTranspose2d(20, 20, 2), "cannot compile module: it calls conv_transpose2d"),
        (nn.AvgPool2d((1, 2)), "cannot compile module: it pools with a window that is not square"),
        (nn.Upsample(scale_factor=1.5), "cannot compile module: it resizes by 1.5"),
        (nn.Flatten(2), "cannot compile module: it flattens"),
        (nn.GroupNorm(2, 20), "cannot compile module: it calls group_norm"),
    ],
)
def test_unsupported_operation_is_named_with_its_path(module: nn.Module, message: str):
    with pytest.raises(EngineError, match=message):
        engine.compile(Operation(module, 20))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x.shape == F.relu(x).shape else -x, "compares the size of a map"),
        (lambda x: F.relu(x) if x.shape[-1] == 7 else x, "compares the size of a map"),
        (lambda x: x * torch.arange(20.0), "a constant whose shape is not"),
        (lambda x: x * torch.ones(20, 1, 1, 1), "a constant whose shape is not"),
        (lambda x: F.interpolate(x, size=(x.shape[3], x.shape[2])), "resizes to a size that is neither"),
        (lambda x: x * F.adaptive_avg_pool2d(x, 2).view(1, -1)[0], "reshapes a feature map"),
        (lambda x: x * F.adaptive_avg_pool2d(x, 1).view(-1, 4), "reshapes a feature map"),
        (lambda x: F.adaptive_avg_pool2d(x, 7) * F.adaptive_avg_pool2d(x, (7, 1)), "maps of different sizes"),
        (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(0), "squeezes an axis"),
        (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1).flatten(0), "flattens the batch"),
        (lambda x: x[:, :, :0], "indexes with anything but"),
        (lambda x: x.to(torch.uint8).float(), "converts a map to torch.uint8"),
        (lambda x: x[:, :4].relu_() + x[:, 4:8] + x[:, :4] * x[:, 8:12], "changes a part of a map in place"),
        (lambda x: (x[:, :4], x.relu_())[0] * 2, "changes a part of a map in place"),
    ],
)
def test_operation_that_would_give_other_values_is_rejected(function: Any, message: str):
    with pytest.raises(EngineError, match=message):
        engine.compile(Operation(function, 20))


class HeadFirst(nn.Module):
    """A network whose convolutions are not registered in the order of their use."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem = nn.Conv2d(10, 4, 1), nn.Conv2d(5, 10, 3)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, 1:], self.head(self.stem(self.norm(x)))]


def test_images_have_the_channels_that_fit_the_network():
    check(randomized(HeadFirst()), torch.randn(2, 5, 9, 8), ["f32"])


class Unchanged(nn.Module):
    """A network that returns its images, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.stem(x)]


def test_images_may_be_an_output():
    check(Unchanged(), torch.randn(2, 3, 9, 8), ["f32"])


def test_unusable_calibration_images_are_named():
    model, images = nn.Sequential(nn.Conv2d(3, 8, 5)).eval(), torch.randn(2, 3, 9, 8)
    with pytest.raises(EngineError, match=r"cannot run calibration images of \(1, 3, 4, 8\)"):
        engine.compile(model, precision="int8", calibration=[images[:, :, :4]])
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(ConfigurationError, match="values that are not finite on the calibration images"):
        engine.compile(model, precision="int8", calibration=[images])


def test_scripted_network_is_rejected():
    with pytest.raises(EngineError, match=r"is compiled by torch\.jit"):
        engine.compile(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1))))
