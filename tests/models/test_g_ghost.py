"""G-Ghost against the official network, reimplemented here as a function of its state dict."""

import copy

import pytest
import torch
from conftest import enliven
from graphs import slow_unless
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.errors import ConfigurationError
from ghostnets.measure import count
from ghostnets.models.g_ghost import VARIANTS, GGhostRegNet, GGhostStage, MixBatchNorm, RegNetBlock

# Name, depths, widths and group width as in the official file; parameters and MACs of that file, in millions.
OFFICIAL = """
002 1,1,4,7   24,56,152,368       8  1.83   131
004 1,2,7,12  32,64,160,384      16  2.88   221
006 1,3,5,7   48,96,240,528      24  4.03   390
008 1,3,7,5   64,128,288,672     16  5.25   529
016 2,4,10,2  72,168,408,912     24  7.11  1021
032 2,6,15,2  96,192,432,1008    48 10.51  1802
040 2,5,14,2  80,240,560,1360    40 15.73  2228
064 2,4,10,1  168,392,784,1624   56 17.99  4055
080 2,5,15,1  80,240,720,1920   120 24.59  4150
120 2,5,11,1  224,448,896,2240  112 30.63  7378
160 2,6,13,1  256,512,896,2048  128 32.38  8997
320 2,7,13,1  336,672,1344,2520 168 62.82 17158
"""
ROWS = {f"g_ghost_regnetx_{line.split()[0]}": line.split()[1:] for line in OFFICIAL.strip().splitlines()}
# Depths below, at and above three; odd numbers of channels; widths that are not multiples of the group width.
SMALL = {"depths": (1, 3, 4, 2), "widths": (15, 26, 33, 40), "group_width": 10}


def build(name: str, **arguments) -> GGhostRegNet:
    return GGhostRegNet(**(dict(VARIANTS[name].arguments) | arguments))


class Reference:
    """The official forward pass in evaluation mode; the structure follows from names and shapes of the tensors."""

    def __init__(self, weights: dict[str, Tensor], group_width: int) -> None:
        self.weights, self.group_width = weights, group_width

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=x.shape[1] // weight.shape[1])

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            self.weights[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def block(self, x: Tensor, name: str, group_width: int, stride: int = 1) -> Tensor:
        width = self.weights[f"{name}.conv2.weight"].shape[0]
        assert width // self.weights[f"{name}.conv2.weight"].shape[1] == width // min(width, group_width)
        y = self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
        y = self.norm(self.conv(y, f"{name}.conv2", stride), f"{name}.bn2").relu()
        y = self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in self.weights:
            x = self.norm(self.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return (y + x).relu()

    def numbered(self, name: str) -> list[str]:
        numbers = {key.removeprefix(f"{name}.").split(".")[0] for key in self.weights if key.startswith(f"{name}.")}
        return [f"{name}.{number}" for number in sorted(numbers, key=int)]

    def ghost_stage(self, x: Tensor, name: str) -> Tensor:
        x = self.block(x, f"{name}.base", self.group_width, 2)
        narrow = int(self.group_width * 0.75)
        raw = int(x.shape[1] * (1 - 0.5) / narrow) * narrow
        maps = [x]
        e = x[:, :raw]
        for layer in self.numbered(f"{name}.layers"):
            e = self.block(e, layer, narrow)
            maps.append(e)
        m = torch.cat([y.mean((2, 3), keepdim=True) for y in maps], 1)
        m = self.norm(self.conv(m, f"{name}.merge.1"), f"{name}.merge.2").relu()
        m = self.norm(self.conv(m, f"{name}.merge.4"), f"{name}.merge.5")
        c = (self.norm(self.conv(x[:, raw:], f"{name}.cheap.0"), f"{name}.cheap.1") + m).relu()
        return self.block(torch.cat([e, c], 1), f"{name}.end", self.group_width)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x, "conv1", 2), "bn1").relu()
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            if f"{stage}.base.conv1.weight" in self.weights:
                x = self.ghost_stage(x, stage)
            else:
                for index, block in enumerate(self.numbered(stage)):
                    x = self.block(x, block, self.group_width, 1 if index else 2)
        return F.linear(x.mean((2, 3)), self.weights["fc.weight"], self.weights["fc.bias"])


def official_shapes(name: str, num_classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an official file, without num_batches_tracked."""
    depths, widths, group_width = ROWS[name][0], ROWS[name][1], int(ROWS[name][2])
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_bn(conv: str, bn: str, c_in: int, c_out: int, k: int = 1) -> None:
        shapes[f"{conv}.weight"] = (c_out, c_in, k, k)
        shapes.update({f"{bn}.{key}": (c_out,) for key in ("weight", "bias", "running_mean", "running_var")})

    def block(prefix: str, c_in: int, c: int, group_width: int, downsample: bool) -> None:
        groups = c // min(c, group_width)
        conv_bn(f"{prefix}.conv1", f"{prefix}.bn1", c_in, c)
        conv_bn(f"{prefix}.conv2", f"{prefix}.bn2", c // groups, c, 3)
        conv_bn(f"{prefix}.conv3", f"{prefix}.bn3", c, c)
        if downsample:
            conv_bn(f"{prefix}.downsample.0", f"{prefix}.downsample.1", c_in, c)

    conv_bn("conv1", "bn1", 3, 32, 3)
    c_in = 32
    for index, (depth, c) in enumerate(zip(map(int, depths.split(",")), map(int, widths.split(",")), strict=True)):
        stage = f"layer{index + 1}"
        if index == 0 or depth <= 2:
            for i in range(depth):
                block(f"{stage}.{i}", c if i else c_in, c, group_width, downsample=i == 0)
        else:
            narrow = int(group_width * 0.75)
            raw = int(c * 0.5 / narrow) * narrow
            block(f"{stage}.base", c_in, c, group_width, downsample=True)
            block(f"{stage}.end", c, c, group_width, downsample=False)
            conv_bn(f"{stage}.merge.1", f"{stage}.merge.2", c + raw * (depth - 2), c - raw)
            conv_bn(f"{stage}.merge.4", f"{stage}.merge.5", c - raw, c - raw)
            conv_bn(f"{stage}.cheap.0", f"{stage}.cheap.1", c - raw, c - raw)
            for i in range(depth - 2):
                block(f"{stage}.layers.{i}", raw, raw, narrow, downsample=False)
        c_in = c
    return shapes | {"fc.weight": (num_classes, c_in), "fc.bias": (num_classes,)}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_counts_and_names_match_official_file(name: str):
    with torch.device("meta"):
        model = build(name)
    cost = count(model, (3, 224, 224))
    assert [f"{cost.params / 1e6:.2f}", f"{cost.macs / 1e6:.0f}"] == ROWS[name][3:]
    shapes = {k: tuple(t.shape) for k, t in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert shapes == official_shapes(name)


def test_variants_match_official_table():
    assert {
        name: [",".join(map(str, a["depths"])), ",".join(map(str, a["widths"])), str(a["group_width"])]
        for name, (a, *_) in VARIANTS.items()
    } == {name: row[:3] for name, row in ROWS.items()}
    published = {name[-3:]: v.top1 for name, v in VARIANTS.items() if v.top1 is not None}
    assert published == {"032": 77.8, "040": 78.6, "080": 79.0, "160": 79.9}


@pytest.mark.parametrize("name", slow_unless(["002", "small"], ["002", "006", "040", "080", "small"]))
def test_outputs_match_official_structure(name: str, randomize):
    model = GGhostRegNet(**SMALL) if name == "small" else build(f"g_ghost_regnetx_{name}")
    randomize(model)
    arguments = SMALL if name == "small" else VARIANTS[f"g_ghost_regnetx_{name}"].arguments
    reference = Reference(model.state_dict(), arguments["group_width"])
    for size in [(64, 64), (65, 33), (1, 1)]:
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            expected = reference(x)
            assert (expected[0] - expected[1]).abs().max() > 0.1
            atol = 1e-5 * max(1, expected.abs().max().item())
            torch.testing.assert_close(model(x), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", slow_unless(["g_ghost_regnetx_002"], ["g_ghost_regnetx_002", "g_ghost_regnetx_006"]))
def test_every_parameter_receives_gradient(name: str, batch: int):
    model = build(name, num_classes=5).train()
    model(torch.randn(batch, 3, 64, 48)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_batch_of_one_with_one_pixel_map_raises_in_training():
    model = GGhostRegNet(**SMALL)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        model(torch.randn(1, 3, 32, 32))
    assert model(torch.randn(1, 3, 32, 33)).shape == (1, 1000)
    assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_mix_batch_norm_matches_batch_norm_except_for_batch_of_one(momentum: float | None, randomize):
    ours, usual = MixBatchNorm(5, momentum=momentum), nn.BatchNorm2d(5, momentum=momentum)
    randomize(ours)
    usual.load_state_dict(ours.state_dict())
    for norm in (ours, usual):
        norm.train()
    for _ in range(3):
        x = torch.randn(4, 5, 1, 1)
        torch.testing.assert_close(ours(x), usual(x), rtol=0, atol=0)
    before = copy.deepcopy(ours.state_dict())
    one = torch.randn(1, 5, 1, 1)
    torch.testing.assert_close(ours(one), usual.eval()(one), rtol=0, atol=0)
    for state in (before, usual.state_dict()):
        assert all(torch.equal(state[key], tensor) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": (2, 2, 2)},
        {"widths": (96, 192, 432)},
        {"depths": (2, 0, 3, 2)},
        {"widths": (96, 0, 432, 1008)},
        {"group_width": 0},
    ],
)
def test_invalid_arguments_raise(arguments: dict):
    with pytest.raises(ConfigurationError):
        GGhostRegNet(**arguments)


def test_indivisible_channels_raise():
    with pytest.raises(ConfigurationError, match="25 channels are not divisible into groups of 12"):
        RegNetBlock(8, 25, group_width=12)
    with pytest.raises(ConfigurationError, match="0 channels are not divisible into groups of 36"):
        GGhostStage(8, 60, group_width=48, blocks=[{}, {}, {}])
    stage = GGhostStage(8, 7, group_width=1, blocks=[{"stride": 2}, {}, {}]).eval()
    assert stage(torch.randn(1, 8, 5, 3)).shape == (1, 7, 3, 2)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_network_matches_strided_network_on_its_grid(output_stride: int):
    """Without G-Ghost stages, whose merge layers would average over other pixels."""
    plain = {"depths": (1, 2, 2, 2), "widths": (16, 24, 32, 40), "group_width": 8}
    strided = enliven(GGhostRegNet(**plain))
    dilated = GGhostRegNet(**plain, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 96, 64)
    step = 32 // output_stride
    with torch.inference_mode():
        got, expected = dilated.forward_features(x)[:, :, ::step, ::step], strided.forward_features(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
