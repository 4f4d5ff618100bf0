"""Networks with code of their own: converted exactly, or rejected with a reason, whatever their layers do besides."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress import analyse, apply_changes, ghostify, heal, quantize
from ghostnets.compress.sites import Site
from ghostnets.compress.surgery import describe_change, insert_ghost, merge_channels
from ghostnets.errors import ConfigurationError
from ghostnets.layers.copying import copy_module

IMAGES = torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """Two convolutions with normalisations and a third; the others below change one thing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.b, self.b_norm = nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24)
        self.c, self.act = nn.Conv2d(24, 16, 3, 2, 1), nn.ReLU()
        self.head = nn.Linear(16, 5)

    def maps(self, x: Tensor) -> Tensor:
        x = self.act(self.a_norm(self.a(x)))
        return self.act(self.c(F.relu(self.b_norm(self.b(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.maps(x).mean((2, 3)))


class Viewed(Plain):
    """A view fails on maps in channels_last, which weights of such strides lead to."""

    kernel_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(24, 16, self.kernel_size, 2, self.kernel_size // 2)
        self.head = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.maps(x)
        return self.head(y.view(y.size(0), -1))


class ViewedPointwise(Viewed):
    kernel_size = 1


class ViewedByChannel(Plain):
    """The linear layer reads the 16 pixels of each of the 16 maps."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(self.maps(x), 4)
        return self.head(y.reshape(y.size(0) * y.size(1), -1)).view(y.size(0), y.size(1), 5).mean(1)


class FlattenedWithBatch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(self.maps(x), (1, 16))
        return self.head(torch.flatten(y, end_dim=1)).view(len_of(x), 16, 5).mean(1)


def len_of(x: Tensor) -> int:
    return x.size(0)


class SecondName(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.also = self.b

    def maps(self, x: Tensor) -> Tensor:
        x = self.act(self.a_norm(self.a(x)))
        return self.act(self.c(F.relu(self.b_norm(self.also(x)))))


class Listed(Plain):
    """A list holds a layer beside the module, so that another one in its place would not run."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = [self.b]

    def maps(self, x: Tensor) -> Tensor:
        x = self.act(self.a_norm(self.a(x)))
        return self.act(self.c(F.relu(self.b_norm(self.listed[0](x)))))


class Normalising(Plain):
    """Makes a tensor in each run, and keeps maps."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.maps(x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        return self.head(self.kept.mean((2, 3)))


class Accumulating(Plain):
    """Adds to a tensor of its own in place."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(1, 5).repeat(1, 1)
        total = torch.zeros(5) + total
        y = self.maps(x).mean((2, 3))
        return total + self.head(y)


class DividingByChannels(Plain):
    def maps(self, x: Tensor) -> Tensor:
        x = self.act(self.a_norm(self.a(x)))
        _, channels, height, _ = x.shape
        return self.act(self.c(F.relu(self.b_norm(self.b(x))))) / (channels * height)


def with_hook(name: str, hook: Callable[..., Any], *, before: bool = False) -> Callable[[], nn.Module]:
    def create() -> nn.Module:
        model = Plain()
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(hook) if before else layer.register_forward_hook(hook)
        return model

    return create


def with_layer(name: str, kind: type[nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that creates the network with a layer of another class."""

    def create() -> nn.Module:
        model = Plain()
        old = model.get_submodule(name)
        more = (3, 2, 1) if isinstance(old, nn.Conv2d) else ()
        made = kind(*tuple(old.weight.shape[:2])[::-1], *more)
        made.load_state_dict(old.state_dict(), strict=False)
        setattr(model, name, made)
        return model

    return create


class Activated(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Shuffled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, 1)


class Doubled(nn.Conv2d):
    """Its bias does not come last."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Gated(nn.Conv2d):
    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.gate = nn.Parameter(torch.linspace(0.5, 1.5, self.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gate[:, None, None]


class Padded(nn.Conv2d):
    """A subclass that is a convolution all the same."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 8 * F.linear(F.normalize(x), F.normalize(self.weight))


class LowRank(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.up(self.down(x))


FACTORS = torch.linspace(0.5, 1.5, 24)[:, None, None]
CONVERTED: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "view": (Viewed, {}),
    "view of a 1x1 convolution": (ViewedPointwise, {}),
    "view by channel": (ViewedByChannel, {}),
    "flattened with the batch": (FlattenedWithBatch, {}),
    "second name": (SecondName, {}),
    "list": (Listed, dict.fromkeys("ab", "other code than Listed's modules holds b")),
    "constants and kept maps": (Normalising, {}),
    "constant added": (Accumulating, {}),
    "number of channels": (DividingByChannels, {}),
    "hook of a normalisation": (with_hook("b_norm", lambda _, __, y: y * FACTORS), {}),
    "hook of an activation": (with_hook("act", lambda _, __, y: y.flip(1)), {}),
    "hook of a convolution": (
        with_hook("b", lambda _, __, y: y * FACTORS),
        {"b": "it has hooks or a forward of its own"},
    ),
    "hook before a convolution": (
        with_hook("c", lambda _, x: (x[0] * FACTORS,), before=True),
        {"c": "it has hooks or a forward of its own"},
    ),
    "activation inside": (
        with_layer("b", Activated),
        {
            "a": "b, which reads its maps, is not linear in its weight and bias, channel by channel",
            "b": "Activated is not linear in its weight and bias, channel by channel",
        },
    ),
    "order of channels": (
        with_layer("b", Shuffled),
        {"b": "Shuffled is not linear in its weight and bias, channel by channel"},
    ),
    "factor after the bias": (
        with_layer("b", Doubled),
        {
            "a": "b, which reads its maps, is not linear in its weight and bias, channel by channel",
            "b": "Doubled is not linear in its weight and bias, channel by channel",
        },
    ),
    "gate": (
        with_layer("b", Gated),
        {
            "a": "b, which reads its maps, is not linear in its weight and bias, channel by channel",
            "b": "Gated is not linear in its weight and bias, channel by channel",
        },
    ),
    "padding": (with_layer("b", Padded), {}),
    "cosine": (
        with_layer("head", Cosine),
        {"c": "head, which reads its maps, is not linear in its weight and bias, channel by channel"},
    ),
    "low rank": (
        with_layer("head", LowRank),
        {"c": "head, which reads its maps, is not linear in its weight and bias, channel by channel"},
    ),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_own_code_is_converted_exactly_or_left_alone(name: str, randomize):
    create, left_alone = CONVERTED[name]
    torch.manual_seed(0)
    model = randomize(create()).eval()
    expected = model(IMAGES).detach()
    analysis = analyse(model, IMAGES)
    assert analysis.left_alone == left_alone
    for site in analysis.sites:
        for kind in ("merge", "ghost", "mixed ghost") if site.consumer else ("ghost", "mixed ghost"):
            compare_without_copy(model, site, kind)
    made, report = analysis.ghostify(0.9)
    assert torch.equal(model(IMAGES), expected)
    with torch.no_grad():
        again = apply_changes(model, report.changes)
        again.load_state_dict(made.state_dict())
        assert torch.equal(again(IMAGES), made(IMAGES))
    heal(made, model, IMAGES, block_steps=1, steps=1)
    quantize(model, IMAGES)


@torch.no_grad()
def compare_without_copy(model: nn.Module, site: Site, kind: str) -> None:
    """Let the last channel of a site be a copy of the first one, and check that it can be left out."""
    copied = copy_module(model)
    for name in (site.conv, site.norm, *site.chain):
        layer = copied.get_submodule(name) if name else nn.Identity()
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if tensor.dim():
                tensor[-1] = tensor[0]
    made, channels = copy_module(copied), len(copied.get_submodule(site.conv).weight)
    kept, change = torch.arange(channels - 1), describe_change(site, kind, channels - 1)
    if kind == "merge":
        matrix = torch.eye(channels)[:, :-1]
        matrix[-1, 0] = 1
        merge_channels(made, change, kept, matrix, torch.zeros(channels))
    else:
        ghost = insert_ghost(made, change, kept)
        for tensor in (ghost.cheap.weight, ghost.cheap.bias, ghost.mix.weight if ghost.mix else ghost.source):
            tensor.zero_()
        ghost.cheap.weight[:, :, 1, 1] = 1
        if ghost.mix is not None:
            ghost.mix.weight[:, 0] = 1
    torch.testing.assert_close(made(IMAGES), copied(IMAGES), rtol=1e-4, atol=1e-4)


def test_weights_modes_images_and_random_numbers_stay(randomize):
    model = randomize(Plain()).train()
    model.b_norm.eval()
    images, state, before = IMAGES.clone(), torch.get_rng_state(), copy_module(model).state_dict()
    made, _ = ghostify(model, images, budget=0.7)
    heal(made, model, images, block_steps=1, steps=1)
    quantize(model, images, steps=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, IMAGES)
    assert [module.training for module in model.children()] == [True, True, True, False, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class OneMap(Plain):
    """A convolution reads the mean of all images, without a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.c2(self.c1(x[0] * 0)))

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)


def test_convolutions_without_a_batch_are_left_alone(randomize):
    model = randomize(OneMap()).eval()
    _, report = ghostify(model, IMAGES, budget=0.8)
    assert report.left_alone["c1"] == "its maps have 3 axes"
    _, quantized = quantize(model, IMAGES)
    assert [layer.layer for layer in quantized.sensitivity] == ["a", "b", "c", "head"]


class InPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5))


class AlwaysDropping(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x))


class Deciding(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class Locked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize("function", [ghostify, quantize, lambda model, images: heal(model, model, images)])
@pytest.mark.parametrize(
    ("create", "message"),
    [
        (InPlace, "InPlace changes its images in place; let its forward begin with x = x.clone()"),
        (AlwaysDropping, "AlwaysDropping returns other values in each run, in evaluation mode too"),
        (Locked, "lock of Locked cannot be copied \\(cannot pickle '_thread.lock' object\\)"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "has weights without a shape yet"),
    ],
)
def test_networks_that_cannot_be_measured_are_rejected(create: Callable[[], nn.Module], message: str, function):
    images = IMAGES.clone()
    with pytest.raises(ConfigurationError, match=message):
        function(create().eval(), images)
    assert torch.equal(images, IMAGES)


def test_networks_that_return_classes_are_converted_but_not_trained():
    made, _ = ghostify(Deciding().eval(), IMAGES, budget=0.8)
    quantize(Deciding().eval(), IMAGES)
    for function in (lambda: heal(made, Deciding(), IMAGES), lambda: quantize(Deciding(), IMAGES, steps=1)):
        with pytest.raises(ConfigurationError, match="Deciding returns no floating-point numbers"):
            function()


class Overwriting(Plain):
    """Changes a map in place that the gradient of the ReLU before it needs."""

    def maps(self, x: Tensor) -> Tensor:
        y = super().maps(x)
        y *= y
        return y


def test_networks_without_gradients_are_rejected_by_heal():
    with pytest.raises(ConfigurationError, match="Overwriting cannot be trained: one of the variables needed"):
        heal(Overwriting(), Overwriting(), IMAGES)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(800, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_size": 8}, "Flat does not run on images of shape \\(2, 3, 8, 8\\)"),
        ({"labels": torch.full((24,), 4)}, "labels are torch.int64 from 4 to 4, but Flat has 4 classes"),
        ({"labels": torch.zeros(24)}, "labels are torch.float32 from 0.0 to 0.0"),
    ],
)
def test_crops_and_labels_that_do_not_fit_the_network_are_rejected_by_heal(arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        heal(Flat(), Flat(), IMAGES, **arguments)
