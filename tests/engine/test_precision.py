"""bf16 and int8 against torch in float64: bounds of the rounding error, and results that must not depend on it."""

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import enliven
from graphs import SHORT_STAGES
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.data.fashion_mnist import FashionMnist
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.models import create_model
from ghostnets.native import ENGINE, import_native, missing_native
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.fused import fused_training

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
calibrate_file = sys.modules["ghostnets.engine.calibrate"]
ISAS = import_native(ENGINE).instruction_sets() if missing_native(ENGINE) is None else ["none"]
NETWORKS = ("ghostnet_050", "ghostnet_100", "ghostnetv2_050")
SHAPES = [(1, 1, 1), (1, 64, 224), (2, 33, 47), (5, 32, 40), (1, 7, 200), (3, 65, 31)]
# Error against float64, as a multiple of torch's error in bfloat16 throughout. A step of bfloat16 is 2^-8 of a
# value, one of a byte 2^-8 of the range of its map.
BOUNDS = {"bf16": 1.7, "int8": 6.0}


def compiled(
    model: nn.Module, precision: str, x: Tensor, *, method: str = "percentile", **options: Any
) -> engine.Session:
    """Compile a model, calibrated with the images `x` for int8."""
    if precision == "int8":
        options |= {"calibration": [x], "method": method}
    return engine.compile(model, precision=precision, **options)


class Truth:
    """A network's output in float64, and the error of torch in bfloat16."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        with torch.no_grad():
            self.expected = copy.deepcopy(model).double()(x.double())
            self.usual = self.error_of(copy.deepcopy(model).bfloat16()(x.bfloat16()))

    def error_of(self, got: Tensor) -> float:
        assert got.shape == self.expected.shape
        return float((got - self.expected).square().mean().sqrt() / self.expected.square().mean().sqrt())

    def check(self, got: Tensor, precision: str) -> None:
        assert got.dtype == torch.float32
        error, bound = self.error_of(got), BOUNDS[precision] * self.usual + 0.01
        assert error < bound, f"{precision}: {error:.4f} of at most {bound:.4f}"


@functools.cache
def network_and_truths(name: str) -> tuple[nn.Module, list[tuple[Tensor, Truth]]]:
    """Return the truth for every shape, computed once for all precisions and instruction sets."""
    torch.manual_seed(0)
    model = enliven(create_model(name, num_classes=13))
    inputs = [torch.randn(count, 3, height, width) for count, height, width in SHAPES]
    return model, [(x, Truth(model, x)) for x in inputs]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["f32", *BOUNDS])
def test_bits_do_not_depend_on_the_number_of_threads(precision: str, isa: str):
    """Maps of odd heights, by rows and whole; more threads than rows; batches that threads share, and do not."""
    for name, shapes in (("ghostnet_100", [(1, 97, 131), (5, 33, 47)]), ("ghostnetv2_050", [(1, 65, 31)])):
        torch.manual_seed(0)
        model = create_model(name, num_classes=20).eval()
        for shape in shapes:
            x = torch.randn(shape[0], 3, *shape[1:])
            single = compiled(model, precision, x, threads=1, isa=isa)
            expected = single(x)
            for threads in (2, 3, 7):
                assert torch.equal(single.copy(threads=threads)(x), expected), (shape, threads)


def test_int8_bits_agree_among_wide_instruction_sets():
    """Sums of bytes are exact, and no squeeze-and-excitation in bfloat16 rounds by the instruction set."""
    torch.manual_seed(0)
    model = enliven(create_model("ghost_resnet20", num_classes=5))
    x = torch.randn(3, 3, 37, 45)
    wide = [isa for isa in ISAS if isa.startswith("avx512")]
    outputs = [compiled(model, "int8", x, threads=1, isa=isa)(x) for isa in wide]
    for isa, got in zip(wide, outputs, strict=True):
        assert torch.equal(got, outputs[0]), f"{isa} differs from {wide[0]}"


@pytest.mark.parametrize(
    ("name", "isa"), [*((name, ISAS[0]) for name in NETWORKS), *(("ghostnetv2_050", isa) for isa in ISAS[1:])]
)
@pytest.mark.parametrize("precision", BOUNDS)
def test_error_is_bounded_at_many_sizes(precision: str, name: str, isa: str):
    model, cases = network_and_truths(name)
    sessions: list[engine.Session] = []
    for x, truth in cases:
        if not sessions or precision == "int8":  # which is calibrated with the images
            single = compiled(model, precision, x, threads=1, isa=isa)
            sessions = [single, single.copy(threads=3)]
        for session in sessions:
            assert (session.precision, session.isa) == (precision, isa)
            truth.check(session(x), precision)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 0.1},
        {"width": 1.07},
        {"ratio": 1, "width": 0.5},
        {"ratio": 3, "width": 0.5},
        {"ratio": 4, "width": 0.7, "cheap_kernel_size": 5},
        {"cheap_kernel_size": 1, "width": 0.5},
        {"cheap_kernel_size": 7, "width": 0.5},
        {"output_stride": 8, "width": 0.5},
        {"small_input": True, "in_chans": 5},
        {"num_classes": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", BOUNDS)
def test_error_is_bounded_for_model_arguments(precision: str, arguments: dict[str, Any]):
    model = enliven(create_model("ghostnet_100", stages=SHORT_STAGES, **arguments))
    x = torch.randn(3, arguments.get("in_chans", 3), 75, 64)
    session = compiled(model, precision, x, threads=2)
    Truth(model, x).check(session(x), precision)


@pytest.mark.parametrize("precision", BOUNDS)
def test_batch_outputs_match_single_images(precision: str, randomize):
    model = randomize(create_model("ghostnet_050", num_classes=4))
    x = torch.randn(33, 3, 40, 36)
    session = compiled(model, precision, x, threads=1)
    sessions = [session, session.copy(threads=2)]
    alone = torch.cat([sessions[0](image[None]) for image in x])
    for session in sessions:
        for batch in (1, 2, 5, 8, 33):
            assert (session(x[:batch]) - alone[:batch]).abs().max() < 0.03 * alone.abs().max()


@pytest.mark.parametrize("precision", BOUNDS)
def test_uint8_and_normalized_float_images_agree(precision: str):
    model = enliven(create_model("ghostnet_050", num_classes=4))
    pixels = torch.randint(0, 256, (2, 61, 70, 3), dtype=torch.uint8)
    x = ((pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    session = compiled(model, precision, pixels, threads=1, mean=MEAN, std=STD)
    truth = Truth(model, x)
    truth.check(session(pixels), precision)
    truth.check(session(x), precision)


@pytest.mark.parametrize("precision", ["f32", *BOUNDS])
def test_save_and_load_round_trip(precision: str, tmp_path: Path, randomize):
    x = torch.randn(2, 3, 50, 64)
    session = compiled(randomize(create_model("ghostnetv2_050", num_classes=6)), precision, x, threads=2)
    session.save(tmp_path / "net.engine")
    loaded = engine.load(tmp_path / "net.engine", threads=2)
    assert loaded.precision == precision
    assert torch.equal(loaded(x), session(x))


def test_low_precision_predictions_agree_with_f32_for_a_trained_network():
    """The network is trained for 100 steps on the embedded set."""
    images = FashionMnist().load(Preprocessing(28, 28, (0.449,), (0.226,)))
    pixels = images.train.pixels[:2000, 0, :, :, None].contiguous()
    x = (pixels.float() / 255 - 0.449).permute(0, 3, 1, 2) / 0.226
    labels = images.train.labels[:2000]
    options = {"width": 0.25, "small_input": True, "stages": SHORT_STAGES}
    model = create_model("ghostnet_050", num_classes=10, in_chans=1, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step in range(100):
        chosen = slice(step * 32 % 1984, step * 32 % 1984 + 32)
        optimizer.zero_grad()
        with fused_training():
            nn.functional.cross_entropy(model(x[chosen]), labels[chosen]).backward()
        optimizer.step()
    model.eval()
    unseen = images.test.pixels[:500, 0, :, :, None].contiguous()
    expected = engine.compile(model, mean=(0.449,), std=(0.226,))(unseen).argmax(1)
    assert (expected == images.test.labels[:500]).float().mean() > 0.5
    cases = [("bf16", "minmax", 0.99), ("int8", "minmax", 0.97), ("int8", "percentile", 0.97)]
    for precision, method, agreement in cases:
        session = compiled(model, precision, pixels[:64], mean=(0.449,), std=(0.226,), method=method)
        assert (session(unseen).argmax(1) == expected).float().mean() >= agreement, (precision, method)


@torch.no_grad()
@pytest.mark.parametrize("method", ["percentile", "minmax"])
def test_ranges_by_channel_lower_the_error_with_one_wide_channel(method: str, monkeypatch: pytest.MonkeyPatch):
    """The first map of a Ghost module is scaled by 16, the weights of all that read it by 1/16: the same function."""
    torch.manual_seed(0)
    model = enliven(create_model("ghostnet_050", num_classes=13))
    x = torch.randn(8, 3, 64, 64)
    expected = model(x)
    block = model.get_submodule("blocks.1.0")
    norm = block.ghost1.primary_conv[1]
    norm.weight[0] *= 16
    norm.bias[0] *= 16
    block.ghost1.cheap_operation[0].weight[0] /= 16
    block.conv_dw.weight[0] /= 16
    torch.testing.assert_close(model(x), expected)
    errors = []
    for power in (0, calibrate_file.EQUALIZATION):
        monkeypatch.setattr(calibrate_file, "EQUALIZATION", power)
        errors.append((compiled(model, "int8", x, method=method, threads=1)(x) - expected).square().mean())
    assert errors[1] < 0.9 * errors[0]


@torch.no_grad()
def test_a_rare_image_does_not_widen_the_ranges_of_percentiles(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = enliven(create_model("ghostnet_050", num_classes=13))
    x = torch.randn(8, 3, 64, 64)
    rare = torch.cat([x, 100 * x[:1]])
    expected, errors = model(x), []
    for outlier in (np.inf, calibrate_file.OUTLIER):
        monkeypatch.setattr(calibrate_file, "OUTLIER", outlier)
        errors.append((compiled(model, "int8", rare, threads=1)(x) - expected).square().mean())
    assert errors[1] < 0.1 * errors[0]


def test_bounds_beyond_four_times_those_of_the_median_image_are_cut():
    found = np.array([[[-1, 0], [2, 1]], [[-1, 0], [2, 1]], [[-9, -1], [3, 50]]], np.float32)
    ranges = calibrate_file._without_rare_images(np.array([[-9, -1], [3, 50]], np.float32), found)
    np.testing.assert_array_equal(ranges, [[-4, -1], [3, 8]])
    found[:2] = 0  # a map that only few images fill keeps its range
    ranges = calibrate_file._without_rare_images(np.array([[-9, -1], [3, 50]], np.float32), found)
    np.testing.assert_array_equal(ranges, [[-9, -1], [3, 50]])


def test_ranges_widen_narrow_channels_and_keep_constant_ones():
    values = np.array([[0, 1, -2, 0], [16, 0, 2, 0]], np.float32)
    ranges = calibrate_file._equalize(calibrate_file._range(values, "minmax"))
    np.testing.assert_allclose(ranges, [[0, 0, -2 * 4**0.75, -2], [16, 16**0.75, 2 * 4**0.75, 16]], rtol=1e-6)


def test_invalid_calibration_raises(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=3))
    x = torch.randn(1, 3, 32, 32)
    for arguments, message in [
        ({"precision": "int8"}, "give calibration="),
        ({"precision": "bf16", "calibration": [x]}, "calibration is for int8, but precision is 'bf16'"),
        ({"precision": "int8", "calibration": []}, "calibration has no image"),
        ({"precision": "int8", "calibration": [x[:, :1]]}, r"expected are float32 \(N, 3, H, W\)"),
        ({"precision": "int8", "calibration": [x], "method": "guess"}, "method is 'guess'"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            engine.compile(model, **arguments)


def test_int8_plan_without_ranges_raises(randomize):
    session = engine.compile(randomize(create_model("ghostnet_050", num_classes=3)))
    session.plan.precision = "int8"
    with pytest.raises(EngineError, match="the range of a map is missing"):
        engine.Session(session.plan)
