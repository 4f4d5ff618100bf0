"""Equal outputs with random statistics, and a changed structure."""

import copy
import math
from collections.abc import Callable

import pytest
import timm
import torch
from conftest import enliven
from graphs import EVERY_GRAPH, create_shallow, slow_unless
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm

from ghostnets.checkpoints.sources import rename_v3
from ghostnets.compress import fuse, reparameterize
from ghostnets.layers import GhostBottleneck, GhostModule, RepConv
from ghostnets.models import Backbone, create_model


def kinds(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules()]


@pytest.mark.parametrize("name", EVERY_GRAPH)
def test_fuse_removes_every_normalisation(name: str):
    """Run in float64: a hundred random layers amplify a float32 rounding error to 1e-4."""
    model = enliven(create_shallow(name, num_classes=7)).double()
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    assert not {"BatchNorm1d", "BatchNorm2d", "RepConv"} & set(kinds(fused))
    for size in [(32, 32), (33, 47)]:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            expected = model(x)
            torch.testing.assert_close(fused(x), expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert "BatchNorm2d" in kinds(model)
    fused.train()(x).square().sum().backward()  # still trainable, all of it
    assert [key for key, p in fused.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("width", slow_unless(["100"], ["050", "100", "130", "160"]))
def test_reparameterized_v3_matches_timm(width: str, randomize):
    theirs = randomize(timm.create_model(f"ghostnetv3_{width}"))
    ours = create_model(f"ghostnetv3_{width}").eval()
    ours.load_state_dict(rename_v3(theirs.state_dict()))
    merged, their_merged = reparameterize(ours), reparameterize_model(theirs)
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, merged)]
    assert counts == [sum(p.numel() for p in model.parameters()) for model in (theirs, their_merged)]
    if width == "100":
        assert counts == [8_129_028, 6_147_588]
    for size in [(96, 96), (97, 97), (64, 160)]:
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            expected = theirs(x)
            atol = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(ours(x), expected, rtol=0, atol=atol)
            torch.testing.assert_close(merged(x), their_merged(x), rtol=0, atol=atol)
            torch.testing.assert_close(merged(x), expected, rtol=0, atol=atol)


def test_fused_v3_has_the_shapes_of_fused_v2():
    """docs/results.md compares the two networks to measure the effect of the branches."""
    v2, v3 = (fuse(create_model(f"ghostnet{version}_100", width=0.2).eval()) for version in ("v2", "v3"))
    assert [(n, p.shape) for n, p in v2.named_parameters()] == [(n, p.shape) for n, p in v3.named_parameters()]


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
@pytest.mark.parametrize("out_channels", [6, 7, 17])
@pytest.mark.parametrize(("kernel_size", "cheap", "stride"), [(1, 3, 1), (3, 5, 2), (3, 1, 2)])
def test_ghost_modules_with_branches_keep_their_outputs(ratio, out_channels, kernel_size, cheap, stride, randomize):
    module = randomize(
        GhostModule(
            3, out_channels, kernel_size=kernel_size, ratio=ratio, cheap_kernel_size=cheap, stride=stride, branches=3
        )
    )
    x = torch.randn(2, 3, 9, 8)
    assert module(x).shape[1] == out_channels
    for changed in (reparameterize(module), fuse(module)):
        assert not any(isinstance(m, RepConv) for m in changed.modules())
        torch.testing.assert_close(changed(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("channels", [(8, 8), (7, 9)])
def test_bottlenecks_with_all_options_keep_their_outputs(kernel_size, channels, randomize):
    c_in, c_out = channels
    for stride in (1, 2):
        block = randomize(
            GhostBottleneck(
                c_in, 15, c_out, kernel_size=kernel_size, stride=stride, se_ratio=0.25, ratio=3, dfc=True, branches=2
            )
        )
        x = torch.randn(2, c_in, 11, 6)
        torch.testing.assert_close(fuse(block)(x), block(x), rtol=1e-5, atol=1e-5)


def test_fuse_leaves_normalisation_after_another_layer(randomize):
    """Normalisation that does not directly follow a convolution in execution must not be folded into it."""

    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.first(x).relu())

    model = randomize(Crossed())
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(fuse(model)(x), model(x))
    tail = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten()))
    assert torch.equal(fuse(tail)(x), tail(x))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv3_small_050"])
def test_fuse_keeps_activations_inside_a_normalisation(name: str, randomize):
    """timm's BatchNormAct2d is a BatchNorm2d with an activation, under the names of this package's stem."""
    model = randomize(timm.create_model(name)).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fuse(model)(x), model(x), rtol=1e-4, atol=1e-4 * float(model(x).abs().max()))


def test_fuse_leaves_pairs_that_it_cannot_fold(randomize):
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True))

    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn1 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.conv(self.bn1(x))

    norms = (nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False))
    pairs = [nn.Sequential(nn.Conv2d(4, 4, 1), norm).eval() for norm in norms]
    standardized = randomize(nn.Sequential(Standardized(4, 4, 1), nn.BatchNorm2d(4)))
    x = torch.randn(2, 4, 5, 5)
    for model in (*pairs, standardized, randomize(Before())):
        assert torch.equal(fuse(model)(x), model(x))


def test_fuse_keeps_the_level_of_a_backbone_before_its_normalisation(randomize):
    backbone = Backbone(randomize(create_shallow("ghostnet_050")), like="timm").eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        outputs = zip(fuse(backbone)(x), backbone(x), strict=True)
    for got, expected in outputs:
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


class ScaledNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x) + 1


def conv_with(prepare: Callable[[nn.Conv2d], object]) -> nn.Conv2d:
    conv = nn.Conv2d(3, 8, 3)
    prepare(conv)
    return conv


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (nn.Conv2d(3, 8, 3), ScaledNorm(8)),
        (conv_with(parametrizations.weight_norm), nn.BatchNorm2d(8)),
        (conv_with(spectral_norm), nn.BatchNorm2d(8)),
        (conv_with(lambda conv: prune.l1_unstructured(conv, "weight", 0.5)), nn.BatchNorm2d(8)),
    ],
)
def test_fuse_leaves_normalisations_with_code_and_weights_that_are_computed(conv: nn.Conv2d, norm: nn.BatchNorm2d):
    model = nn.Sequential(conv, norm).eval()
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(fuse(model)(x), model(x))


def test_fuse_leaves_sequences_with_code_of_their_own(randomize):
    class Tapped(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            maps = self[0](x)
            return maps + self[1](maps)

    model, x = randomize(Tapped(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), torch.randn(2, 3, 6, 5)
    assert torch.equal(fuse(model)(x), model(x))


def test_fuse_folds_a_normalisation_without_finite_values():
    model = create_model("g_ghost_regnetx_002")
    norm = model.layer4.merge[2]
    norm.running_var.fill_(math.nan)
    assert type(norm) is not nn.BatchNorm2d
    assert isinstance(fuse(model).layer4.merge[2], nn.Identity)
