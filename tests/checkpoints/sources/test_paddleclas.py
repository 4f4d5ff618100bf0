"""PaddleClas's GhostNet: exact conversion, and safe reading of its files.

The network is written down here once more, from PaddleClas's source and with its names, independently of ours.
Against the real one (numpy and Paddle come with it; nothing is downloaded by the test):

    python -m venv paddle
    paddle/bin/pip install paddlepaddle==3.3.1
    paddle/bin/pip install --no-deps paddleclas==2.6.0
    GHOSTNETS_PADDLE_PYTHON=paddle/bin/python pytest -m foreign tests/checkpoints/sources
"""

import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ghostnets.checkpoints import load_checkpoint, read_weights
from ghostnets.errors import CheckpointError
from ghostnets.models import create_model

# k, expansion, out, SE, stride, as in PaddleClas
ROWS = [
    (3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1), (3, 240, 80, 0, 2),
    (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1), (3, 672, 112, 1, 1),
    (5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1),
]  # fmt: skip


def conv_bn(c_in: int, c_out: int, k: int, stride: int = 1, groups: int = 1, *, act: bool = False) -> nn.Sequential:
    convolution = nn.Conv2d(c_in, c_out, k, stride, (k - 1) // 2, groups=groups, bias=False)
    layers = {"_conv": convolution, "_batch_norm": nn.BatchNorm2d(c_out)}
    return nn.Sequential(OrderedDict(layers | ({"relu": nn.ReLU()} if act else {})))


class Ghost(nn.Module):
    def __init__(self, c_in: int, c_out: int, *, act: bool) -> None:
        super().__init__()
        half = -(-c_out // 2)
        self.primary_conv = conv_bn(c_in, half, 1, act=act)
        self.cheap_operation = conv_bn(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)], 1)


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excitation = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excitation(self.squeeze(x.mean((2, 3))).relu())
        return x * gate.clip(0, 1)[:, :, None, None]


class Bottleneck(nn.Module):
    def __init__(self, c_in: int, hidden: int, c_out: int, k: int, stride: int, use_se: int) -> None:
        super().__init__()
        self.ghost_module_1 = Ghost(c_in, hidden, act=True)
        self.depthwise_conv = conv_bn(hidden, hidden, k, stride, hidden) if stride == 2 else nn.Identity()
        self.se_block = Squeeze(hidden) if use_se else nn.Identity()
        self.ghost_module_2 = Ghost(hidden, c_out, act=False)
        self.shortcut_depthwise = self.shortcut_conv = nn.Identity()
        if stride == 2 or c_in != c_out:
            self.shortcut_depthwise = conv_bn(c_in, c_in, k, stride, c_in)
            self.shortcut_conv = conv_bn(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.ghost_module_2(self.se_block(self.depthwise_conv(self.ghost_module_1(x))))
        return out + self.shortcut_conv(self.shortcut_depthwise(x))


class PaddleGhostNet(nn.Module):
    def __init__(self, scale: float, num_classes: int) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            rounded = max(4, int(channels * scale + 2) // 4 * 4)
            return rounded + 4 if rounded < 0.9 * channels * scale else rounded

        channels = scaled(16)
        self.conv1 = conv_bn(3, channels, 3, 2, act=True)
        for number, (k, hidden, c_out, use_se, stride) in enumerate(ROWS):
            block = Bottleneck(channels, scaled(hidden), scaled(c_out), k, stride, use_se)
            self.add_module(f"_ghostbottleneck_{number}", block)
            channels = scaled(c_out)
        self.conv_last = conv_bn(channels, scaled(960), 1, act=True)
        self.fc_0 = conv_bn(scaled(960), 1280, 1, act=True)
        self.fc_1 = nn.Linear(1280, num_classes)
        for name, parameter in self.named_parameters():
            if ".se_block." in name:  # gates on both sides of 0 and 1, so that clamping matters
                nn.init.normal_(parameter, 0, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for number in range(len(ROWS)):
            x = self.get_submodule(f"_ghostbottleneck_{number}")(x)
        return self.fc_1(self.fc_0(self.conv_last(x).mean((2, 3), keepdim=True)).flatten(1))


def arrays_of(model: nn.Module) -> dict[str, np.ndarray]:
    """The state dict in the layout of Paddle."""
    arrays = {}
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            name = key.replace("running_mean", "_mean").replace("running_var", "_variance")
            arrays[name] = np.ascontiguousarray(tensor.numpy().T if tensor.ndim == 2 else tensor.numpy())
    return arrays


def save(arrays: dict[str, np.ndarray], path: Path, protocol: int = 4) -> Path:
    """Write a file like ``paddle.save``."""
    names = {name: f"parameter_{number}" for number, name in enumerate(arrays)}
    path.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": names}, protocol=protocol))
    return path


def test_counts_match_paddleclas():
    """Its table has 5.2 M and 7.3 M; its squeeze-and-excitation is slightly narrower than the canonical one."""
    counts = {s: sum(p.numel() for p in PaddleGhostNet(s, 1000).parameters()) for s in (0.5, 1.0, 1.3)}
    assert {s: round(n / 1e6, 1) for s, n in counts.items()} == {0.5: 2.6, 1.0: 5.2, 1.3: 7.4}


@pytest.mark.parametrize(
    ("name", "scale", "protocol"),
    [("ghostnet_050", 0.5, 4), ("ghostnet_100", 1.0, 2), ("ghostnet_130", 1.3, 3)],
)
def test_conversion_preserves_outputs(tmp_path: Path, randomize, name: str, scale: float, protocol: int):
    theirs = randomize(PaddleGhostNet(scale, 7))
    path = save(arrays_of(theirs), tmp_path / "weights.pdparams", protocol)
    if protocol < 4:  # as the released files have it, which are older than numpy 2
        content = path.read_bytes()
        assert b"cnumpy._core.multiarray\n" in content
        path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    ours = load_checkpoint(name, path)
    x = torch.randn(2, 3, 97, 64)
    gates: list[Tensor] = []
    for module in theirs.modules():
        if isinstance(module, Squeeze):
            module.excitation.register_forward_hook(lambda _module, _inputs, output: gates.append(output.flatten()))
    with torch.inference_mode():
        expected, got = theirs(x), ours(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert (torch.cat(gates) < 0).any()
    assert (torch.cat(gates) > 1).any()


def test_mismatched_names_and_shapes_raise(tmp_path: Path):
    arrays = arrays_of(PaddleGhostNet(0.5, 3))
    model = create_model("ghostnet_050", num_classes=3)
    for change, message in [
        (lambda a: a.pop("conv1._batch_norm._mean"), "2 missing: bn1"),
        (lambda a: a.pop("_ghostbottleneck_3.se_block.squeeze.bias"), "incomplete"),
        (lambda a: a.pop("fc_0._batch_norm._variance"), "incomplete"),
        (lambda a: a.update({"conv1._conv.bias2": np.zeros(3, np.float32)}), r"no tensor 'conv1\._conv\.bias2'"),
        (lambda a: a.update({"fc_1.bias": np.zeros(4, np.float32)}), r"1 of another shape: classifier\.bias"),
        (lambda a: a.update({"fc_0._batch_norm._mean": np.zeros(4, np.float32)}), "are inconsistent"),
    ]:
        changed = dict(arrays)
        change(changed)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(model, save(changed, tmp_path / "x.pdparams"))
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(create_model("ghostnetv2_050", num_classes=3), save(arrays, tmp_path / "x.pdparams"))
    with pytest.raises(CheckpointError, match="this network"):
        load_checkpoint(create_model("ghostnet_050", width=0.2), save(arrays, tmp_path / "x.pdparams"))


def test_supported_array_layouts(tmp_path: Path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (values, values.astype(">f4"), np.asfortranarray(values), values.astype(np.float64), values[:, ::2]):
        read = read_weights(save({"a": array}, tmp_path / "x.pdparams")).tensors["a"]
        assert torch.equal(read, torch.from_numpy(array.astype(array.dtype.newbyteorder("="))))
    pair = {"a": ("parameter_0", values)}  # as Paddle 2.1 saves what is not a plain state dict
    assert torch.equal(read_weights(save(pair, tmp_path / "x.pdparams")).tensors["a"], torch.from_numpy(values))


class Bomb:
    """Object whose pickle calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["value", "name", "beside"])
def test_pickle_with_code_is_rejected_without_running_it(tmp_path: Path, protocol: int, place: str):
    arrays = arrays_of(PaddleGhostNet(0.5, 3))
    bomb = Bomb(Path.touch, tmp_path / "executed")
    content = {
        "value": {**arrays, "conv1._conv.weight": bomb},
        "name": {**arrays, "StructuredToParameterName@@": bomb},
        "beside": [bomb, arrays],
    }[place]
    path = tmp_path / "bomb.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"is rejected: .*it refers to ") as caught:
        load_checkpoint(create_model("ghostnet_050"), path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())  # the bomb is real
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Bomb(eval, "1")}, r"refers to builtins\.eval"),
        ({"a": Bomb(np.load, "x")}, "refers to numpy"),
        ({"a": Bomb(np.ndarray, (1 << 50,))}, "'a' is not an array"),  # would be a petabyte
        ({"a": np.array([Bomb(eval, "1")])}, "an array of 'O8'"),
        ({"a": np.array(["text"])}, "an array of 'U4'"),
        ({"a": np.zeros(3, np.int64)}, "an array of 'i8'"),
        ({"a": np.zeros(3, np.complex64)}, "an array of 'c8'"),
        ({"a": 3}, "'a' is not an array"),
        ({3: np.zeros(3, np.float32)}, "'3' is not an array"),
        ({}, "contains no arrays"),
        ([np.zeros(3, np.float32)], "not a dict of arrays"),
        ({"a": np.array([1, np.inf], np.float32)}, "a has non-finite values"),
    ],
)
def test_unsupported_content_is_rejected(tmp_path: Path, content, message: str):
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / "x.pdparams")
    assert "\n" not in str(caught.value)


def test_small_file_cannot_expand(tmp_path: Path):
    array = np.zeros(1 << 16, np.float32)
    shared = {str(number): array for number in range(100)}
    one_text = b"\x80\x02}(" + b"X\x08\x00\x00\x00" + b"\x00" * 8 + b"q\x00" + b"K\x010"  # memo 0 holds 8 characters
    encode = b"c_codecs\nencode\nq\x010" + b"(" + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 1000 + b"l."
    for content, message in [
        (pickle.dumps(shared, protocol=4), "larger than the file"),
        (
            pickle.dumps({"a": np.zeros(3, np.float32)}, protocol=4)[:-9] + b"r\xff\xff\xff\x7f.",
            "is damaged|is rejected",
        ),  # a memo
        (b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"abc", "is damaged|is rejected"),
        (one_text + encode, "not the content of an array|is damaged"),
    ]:
        (tmp_path / "x.pdparams").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / "x.pdparams")


def test_damaged_file_is_rejected(tmp_path: Path):
    path = save({"a": np.ones((40, 30), np.float32), "b": np.ones(3, np.float32)}, tmp_path / "x.pdparams")
    content = path.read_bytes()
    for damaged in (b"", b"\x80", b"not a pickle", content[:100], content[:-1], content.replace(b"f4", b"f8")):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)


THEIR_SCRIPT = """
import importlib.util, sys, types, sysconfig
import numpy as np, paddle

# Their model file alone: the package around it has many more dependencies.
stub = types.ModuleType("ppcls.utils.save_load")
stub.load_dygraph_pretrain = None
sys.modules[stub.__name__] = stub
path = sysconfig.get_paths()["purelib"] + "/paddleclas/ppcls/arch/backbone/model_zoo/ghostnet.py"
spec = importlib.util.spec_from_file_location("ppcls.arch.backbone.model_zoo.ghostnet", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

folder, scale, protocol = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
net = module.GhostNet(scale=scale, class_num=1000)
net.eval()
rng = np.random.default_rng(0)
for name, value in net.state_dict().items():
    if name.endswith(("_variance", "_batch_norm.weight")):
        new = rng.uniform(0.5, 1.5, value.shape)
    elif "se_block" in name:  # gates below 0, within, and above 1
        new = rng.normal(0.5, 1, value.shape) if value.ndim == 1 else rng.normal(0, value.shape[0] ** -0.5, value.shape)
    elif name.endswith(("_mean", "bias")):
        new = rng.normal(0, 0.2, value.shape)
    else:
        new = rng.normal(0, np.prod(value.shape[1:]) ** -0.5, value.shape)
    value.set_value(new.astype("float32"))
x = rng.normal(size=(2, 3, 224, 192)).astype("float32")
np.savez(folder + "/io.npz", x=x, y=net(paddle.to_tensor(x)).numpy())
paddle.save(net.state_dict(), folder + "/weights.pdparams", protocol=protocol)
"""


@pytest.mark.foreign
@pytest.mark.skipif("GHOSTNETS_PADDLE_PYTHON" not in os.environ, reason="names no Python that has Paddle")
@pytest.mark.parametrize(
    ("name", "scale", "protocol"),
    [("ghostnet_050", 0.5, 4), ("ghostnet_100", 1.0, 3), ("ghostnet_130", 1.3, 2)],
)
def test_matches_original_implementation(tmp_path: Path, name: str, scale: float, protocol: int):
    python = os.environ["GHOSTNETS_PADDLE_PYTHON"]
    subprocess.run([python, "-c", THEIR_SCRIPT, str(tmp_path), str(scale), str(protocol)], check=True)
    stored = np.load(tmp_path / "io.npz")
    x, expected = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])
    with torch.inference_mode():
        got = load_checkpoint(name, tmp_path / "weights.pdparams")(x)
    print(f"{name}: largest difference {(got - expected).abs().max():.3g}, largest output {expected.abs().max():.3g}")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    # What the everyday tests are made with is what Paddle writes.
    tensors = read_weights(tmp_path / "weights.pdparams").tensors
    assert {k: tuple(t.shape) for k, t in tensors.items()} == {
        k: a.shape for k, a in arrays_of(PaddleGhostNet(scale, 1000)).items()
    }
