"""The engine against torch in float64: every network, odd sizes, all instruction sets, concurrent threads."""

import copy
import functools
import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import randomized
from graphs import SHORT_STAGES, slow_unless
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.models import create_model
from ghostnets.native import ENGINE, import_native, missing_native
from ghostnets.preprocessing import Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
ISAS = import_native(ENGINE).instruction_sets() if missing_native(ENGINE) is None else ["none"]


def in_float64(model: nn.Module, *inputs: Tensor) -> Any:
    """Output of the network in float64 for each input; for one input, its output."""
    double = copy.deepcopy(model).double()
    with torch.inference_mode():
        outputs = [double(x.double()) for x in inputs]
    return outputs if len(inputs) > 1 else outputs[0]


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    error = (got.double() - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, error


@functools.cache
def ghostnet_and_outputs(name: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Network, and inputs of many sizes with their outputs in float64, computed once for all instruction sets."""
    torch.manual_seed(0)
    model = randomized(create_model(name, num_classes=13))
    shapes = [(1, 1, 1), (1, 224, 224), (2, 33, 47), (5, 32, 40), (1, 7, 200), (3, 65, 31), (1, 160, 97)]
    inputs = [torch.randn(count, 3, height, width) for count, height, width in shapes]
    return model, list(zip(inputs, in_float64(model, *inputs), strict=True))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "name",
    slow_unless(
        ["ghostnet_050", "ghostnetv2_050", "ghostnetv3_050"],
        ["ghostnet_050", "ghostnet_100", "ghostnet_130", "ghostnetv2_050", "ghostnetv2_100", "ghostnetv3_050"],
    ),
)
def test_ghostnets_match_float64_at_many_sizes(name: str, isa: str):
    model, cases = ghostnet_and_outputs(name)
    compiled = engine.compile(model, threads=1, isa=isa)
    for session in (compiled, compiled.copy(threads=2), compiled.copy(threads=3)):
        assert session.isa == isa
        for x, expected in cases:
            assert_close(session(x), expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 0.1},
        {"width": 0.35, "in_chans": 1},
        {"width": 1.07},
        {"ratio": 1, "width": 0.5},
        {"ratio": 3, "width": 0.5},
        {"ratio": 4, "width": 0.7, "cheap_kernel_size": 5},
        {"cheap_kernel_size": 1, "width": 0.5},
        {"cheap_kernel_size": 7, "width": 0.5},
        {"output_stride": 8, "width": 0.5},
        {"small_input": True, "in_chans": 5},
        {"num_classes": 0},
        {"num_classes": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["ghostnet_100", "ghostnetv2_100"])
def test_model_arguments_match_float64(name: str, arguments: dict[str, Any], randomize):
    model = randomize(create_model(name, stages=SHORT_STAGES, **arguments))
    channels = arguments.get("in_chans", 3)
    inputs = [torch.randn(1, channels, 75, 64), torch.randn(3, channels, 28, 28)]
    outputs = in_float64(model, *inputs)
    single = engine.compile(model, threads=1)
    for session in (single, single.copy(threads=2)):
        for x, expected in zip(inputs, outputs, strict=True):
            assert_close(session(x), expected)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ghostnet_100_d_li14", {}),
        ("ghostnet_100_d_li14_revised", {}),
        ("g_ghost_regnetx_002", {}),
        ("g_ghost_regnetx_002", {"output_stride": 8, "group_width": 12, "widths": (12, 36, 108, 96)}),
        ("ghost_resnet18", {"ratio": 3, "cheap_kernel_size": 5}),
        ("ghost_resnet50", {"output_stride": 16}),
        ("resnet20", {}),
        ("ghost_resnet20", {"in_chans": 1}),
        ("vgg16", {}),
        ("ghost_vgg16", {"ratio": 3, "output_stride": 8}),
        ("ghost_vgg16", {"ghost_stem": False}),
    ],
    ids=str,
)
def test_other_networks_match_float64(name: str, arguments: dict[str, Any], randomize):
    model = randomize(create_model(name, num_classes=7, **arguments))
    shapes = [(2, 33, 47), (1, 1, 1), (1, 40, 101), (5, 17, 9)]
    inputs = [torch.randn(count, arguments.get("in_chans", 3), height, width) for count, height, width in shapes]
    cases = list(zip(inputs, in_float64(model, *inputs), strict=True))
    for isa, threads in [*((isa, 1) for isa in ISAS), (None, 3)]:
        session = engine.compile(model, threads=threads, isa=isa)
        for x, expected in cases[:2] if threads == 1 else cases[2:]:
            assert_close(session(x), expected)


@pytest.mark.parametrize("name", ["ghostnet_050", "g_ghost_regnetx_002", "ghost_vgg16", "ghostnet_100_d_li14"])
def test_features_are_the_classifier_input(name: str, randomize):
    model = randomize(create_model(name, num_classes=7))
    bare = copy.deepcopy(model)
    bare.reset_classifier(0)
    x = torch.randn(2, 3, 50, 37)
    expected = in_float64(bare, x)
    assert_close(engine.compile(model, output="features", threads=2)(x), expected)
    assert_close(engine.compile(bare, threads=1)(x), expected)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ghostnet_050", {"out_indices": range(6)}),
        ("ghostnetv3_050", {"ratio": 3, "out_indices": (2, -1)}),
        ("g_ghost_regnetx_002", {}),
        ("ghost_resnet18", {}),
        ("ghost_vgg16", {"output_stride": 16}),
        ("ghostnet_100_d_li14", {"out_indices": (0, 5)}),
    ],
    ids=str,
)
def test_backbones_return_maps(name: str, arguments: dict[str, Any], tmp_path: Path, randomize):
    model = randomize(create_model(name, features_only=True, **arguments))
    engine.compile(model, threads=1).save(tmp_path / "net.engine")
    for threads, shape in [(1, (1, 63, 40)), (2, (1, 160, 130)), (3, (5, 33, 20))]:
        x = torch.randn(shape[0], 3, *shape[1:])
        maps, expected = engine.load(tmp_path / "net.engine", threads=threads)(x), in_float64(model, x)
        assert len(maps) == len(expected)
        for got, truth in zip(maps, expected, strict=True):
            assert_close(got, truth)
    empty = engine.compile(model)(np.empty((0, 3, 64, 64), np.float32))
    assert [len(level) for level in empty] == [0] * len(expected)


def test_sizes_and_batches_match_float64(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=4))
    session = engine.compile(model, threads=2)
    sides = [*range(1, 40, 3), 63, 64, 95, 129, 190, 257, 320]
    inputs = [torch.randn(1, 3, side, (side * 7) % 65 + 1) for side in sides]
    for x, output in zip(inputs, in_float64(model, *inputs), strict=True):
        assert_close(session(x), output)
    x = torch.randn(33, 3, 20, 23)
    expected = in_float64(model, x)
    for batch in range(34):
        assert_close(session(x[:batch]), expected[:batch]) if batch else None
    assert session(x[:0]).shape == (0, 4)


def test_large_images_match_float64(randomize):
    model = randomize(create_model("ghostnetv2_050", num_classes=4))
    x = torch.randn(1, 3, 801, 900)
    expected = in_float64(model, x)
    single = engine.compile(model, threads=1)
    for session in (single, single.copy(threads=3)):
        assert_close(session(x), expected)


def test_uint8_images_are_normalized_without_padding(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=4))
    session = engine.compile(model, threads=2, mean=MEAN, std=STD)
    for shape in [(1, 224, 224, 3), (3, 31, 45, 3)]:
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        x = (pixels.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        assert_close(session(pixels), in_float64(model, x.permute(0, 3, 1, 2)))


def test_arrays_tensors_and_strides(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=4))
    session = engine.compile(model, threads=1)
    x = torch.randn(2, 3, 40, 48)
    expected = session(x)
    output = session(x.numpy())
    assert isinstance(output, np.ndarray)
    assert np.array_equal(output, expected.numpy())
    assert torch.equal(session(x.to(memory_format=torch.channels_last)), expected)
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    assert np.array_equal(session(read_only), output)
    assert torch.equal(session(x.requires_grad_()), expected)


def test_repeated_and_concurrent_calls_are_bit_identical(randomize):
    model = randomize(create_model("ghostnetv2_100", num_classes=4))
    sessions = [engine.compile(model, threads=threads) for threads in (3, 3, 2)]
    inputs = [torch.randn(1, 3, 96, 100), torch.randn(4, 3, 50, 64)]
    expected = [[session(x) for x in inputs] for session in sessions]
    for _ in range(30):
        assert all(torch.equal(sessions[0](x), y) for x, y in zip(inputs, expected[0], strict=True))

    def call(number: int) -> bool:
        i, j = number % 3, number // 3 % 2
        return torch.equal(sessions[i](inputs[j]), expected[i][j])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(60)))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_copies_share_weights_and_run_concurrently(precision: str, randomize):
    session = engine.compile(randomize(create_model("ghostnet_050")), threads=1, precision=precision)
    weights = sum(array.nbytes for array in session.plan.tensors.values())
    inputs = [torch.randn(n, 3, 64, 64) for n in (1, 3)]
    expected = [session(x) for x in inputs]
    before = resident_bytes()
    copies = [session.copy(threads=1) for _ in range(6)]
    del session  # the weights live as long as anyone reads them
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            for x, output in zip(inputs, expected, strict=True):
                assert all(torch.equal(got, output) for got in pool.map(lambda copy, x=x: copy(x), copies))
    assert resident_bytes() - before < 3 * weights  # maps and stacks of six, but not six times the weights
    assert engine.compile(create_model("ghostnet_050"), threads=1).copy(threads=2).threads == 2
    with pytest.raises(ConfigurationError, match="threads is 0"):
        copies[0].copy(threads=0)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def test_save_and_load_without_torch(tmp_path: Path, randomize):
    model = randomize(create_model("ghostnetv2_050", num_classes=6))
    session = engine.compile(model, threads=1, mean=MEAN, std=STD)
    session.save(tmp_path / "net.engine")
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 50), dtype=np.float32)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 30, 30, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=x, pixels=pixels)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from ghostnets import engine\n"
        "session = engine.load('net.engine', threads=1); images = np.load('images.npz')\n"
        "np.savez('logits.npz', x=session(images['x']), pixels=session(images['pixels']))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    logits = np.load(tmp_path / "logits.npz")
    assert np.array_equal(logits["x"], session(x))
    assert np.array_equal(logits["pixels"], session(pixels))


def test_damaged_files_raise(tmp_path: Path, randomize):
    path = tmp_path / "net.engine"
    engine.compile(randomize(create_model("ghostnet_050", num_classes=3))).save(path)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["ghostnets.engine"])

    def rewrite(**changes: Any) -> None:
        save_file(tensors, path, metadata={"ghostnets.engine": json.dumps(description | changes)})

    rewrite(format_version=99)
    with pytest.raises(EngineError, match="plan format 99, this ghostnets reads format 2"):
        engine.load(path)
    nodes = [dict(node) for node in description["nodes"]]
    for change in [{"kind": "bogus"}, {"weight": "missing"}, {"input": 999}, {"weight": nodes[-1]["weight"]}]:
        rewrite(nodes=[*nodes[:5], nodes[5] | change, *nodes[6:]])
        with pytest.raises(EngineError, match=r"cannot be run|is not a compiled network, or damaged"):
            engine.load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineError, match="damaged"):
        engine.load(path)
    with pytest.raises(EngineError, match="there is no file"):
        engine.load(tmp_path / "nothing")


def test_checkpoint_normalization_is_used(tmp_path: Path, randomize):
    model = randomize(create_model("ghostnet_050", num_classes=2))
    preprocessing = Preprocessing(32, 32, MEAN, STD)
    checkpoint = Checkpoint("ghostnet_050", {"num_classes": 2}, model.state_dict(), ("a", "b"), preprocessing)
    save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    expected = engine.compile(model, mean=MEAN, std=STD)(pixels)
    assert torch.equal(engine.compile(checkpoint)(pixels), expected)
    assert torch.equal(engine.compile(tmp_path / "best.safetensors")(pixels), expected)


def test_invalid_arguments_and_images_raise(randomize):
    model = randomize(create_model("ghostnet_050", num_classes=3))
    for arguments, message in [
        ({"threads": 0}, "threads is 0"),
        ({"isa": "abacus"}, "isa is 'abacus'; this processor has"),
        ({"precision": "f8"}, "precision is 'f8'"),
        ({"output": "maps"}, "output is 'maps'; it must be one of logits, features, features.logits"),
        ({"mean": (0.5,), "std": (0.5,)}, "they must have 3 values each"),
        ({"mean": MEAN, "std": (0.1, 0.0, 0.1)}, "those of std above 0"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            engine.compile(model, **arguments)
    session = engine.compile(model)
    for images in [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 4, 32, 32),
        torch.zeros(1, 3, 0, 32),
        torch.zeros(1, 3, 32, 32, dtype=torch.float64),
    ]:
        with pytest.raises(ConfigurationError, match=r"expected are float32 \(N, 3, H, W\)"):
            session(images)
    with pytest.raises(ConfigurationError, match="compiled without their normalisation"):
        session(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    with pytest.raises(ConfigurationError, match=r"expected are uint8 \(N, H, W, 3\)"):
        engine.compile(model, mean=MEAN, std=STD)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


class ManyMaps(nn.Module):
    """80 maps of 256 channels, 82 kB for each pixel of an image, of which two or all are needed at a time."""

    def __init__(self, needs_all: bool):
        super().__init__()
        self.stem = nn.Conv2d(3, 256, 1)
        self.layers = nn.ModuleList(nn.Conv2d(256, 256, 1, groups=256) for _ in range(79))
        self.needs_all = needs_all

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for layer in self.layers:
            maps.append(layer(maps[-1]).relu())
        return torch.cat(maps, 1) if self.needs_all else maps[-1]


def test_limit_of_memory_counts_what_a_run_allocates():
    model = ManyMaps(needs_all=False).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.fill_(1)
    x = torch.rand(1, 3, 72, 72)
    session = engine.compile(model, threads=1)
    (got,) = session(x)
    torch.testing.assert_close(got.double(), in_float64(model, x), rtol=1e-5, atol=1e-5)
    assert session.memory_bytes < 20e6  # of the 425 MB of all maps
    engine.compile(model, precision="int8", calibration=[x.numpy()], threads=1)  # which keeps all maps of an image
    model.needs_all = True
    session = engine.compile(model, threads=1)
    with pytest.raises(EngineError, match=r"it needs 8\d\d MB for 1 image of 72 x 72"):
        session(x)


def test_missing_native_module_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ghostnets.engine._native", None)
    with pytest.raises(EngineError, match=r"the CPU engine could not be built .* C\+\+20 compiler.*pip install"):
        engine.compile(create_model("ghostnet_050"))


def test_thread_creation_failure_raises(tmp_path: Path, randomize):
    engine.compile(randomize(create_model("ghostnet_050", num_classes=3))).save(tmp_path / "net.engine")
    code = (
        "import resource; from ghostnets import engine; from ghostnets.errors import EngineError\n"
        "session = engine.load('net.engine', threads=2)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)\n"
        "try:\n    engine.load('net.engine', threads=900)\n"
        "except EngineError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("900 threads cannot be started")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ghostnet_100", {"width": 0.1, "num_classes": 3}),
        ("ghostnetv3_100", {"width": 0.1, "num_classes": 37}),
        ("resnet20", {}),
        ("ghost_vgg16", {"num_classes": 1000}),
        ("ghostnet_100_d_li14", {"num_classes": 5}),
    ],
)
def test_features_and_logits_of_one_run_equal_those_of_separate_runs(randomize, name: str, arguments: dict):
    model = randomize(create_model(name, **arguments))
    images = torch.randn(3, 3, 48, 40).numpy()
    features, logits, both = (
        engine.compile(model, output=output, threads=1)(images) for output in ("features", "logits", "features+logits")
    )
    assert np.array_equal(both, np.concatenate([features, logits], 1))
