"""Reading of ncnn files: a network written in the format's terms, broken files, and the published NanoDet-Plus-m."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import python_examples
from torch import nn

from ghostnets.checkpoints import load_ncnn, read_ncnn
from ghostnets.errors import CheckpointError
from ghostnets.models.detection import create_detector

LINES = [
    "Input data 0 1 data",
    "Convolution conv 1 1 data a 0=4 1=3 3=2 4=1 5=1 6=108 9=2 -23310=1,1.000000e-01",
    "ConvolutionDepthWise depthwise 1 1 a b 0=4 1=5 11=3 4=2 14=1 5=1 6=60 7=4 9=1",
    "Sigmoid sigmoid 1 1 b c",
    "Convolution last 1 1 c d 0=3 1=1 5=1 6=12",
]
COUNTS = [(108, 4), (60, 4), (12, 3)]


class Plain(nn.Module):
    """The network of ``LINES``."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 3, 1)  # registered before the layers that run before it
        self.first = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.1, inplace=True)
        )
        self.second = nn.Sequential(nn.Conv2d(4, 4, (3, 5), 1, (1, 2), groups=4, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.relu(self.second(self.first(x))).sigmoid())


class WithRelu(Plain):
    """Its activations are layers, as a file has them."""

    def __init__(self) -> None:
        super().__init__()
        self.second.append(nn.ReLU())


def write(folder: Path, *, lines: list[str] = LINES, half: bool = True, tail: bytes = b"") -> tuple[Path, list]:
    """Write the network and return its path and the weights and biases as float32."""
    generator = np.random.default_rng(0)
    content, arrays = b"", []
    for weights, biases in COUNTS:
        weight = generator.normal(size=weights).astype(np.float16 if half else np.float32)
        bias = generator.normal(size=biases).astype(np.float32)
        stored = weight.tobytes()
        content += struct.pack("<I", 0x01306B47 if half else 0) + stored + b"\0" * (-len(stored) % 4) + bias.tobytes()
        arrays.append((weight.astype(np.float32), bias))
    path = folder / "net.param"
    path.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(content + tail)
    return path, arrays


def test_documented_example_loads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path, arrays = write(tmp_path)
    (example,) = (code for _, code in python_examples("docs/detection.md") if "load_ncnn" in code)
    code = example.replace('create_detector("nanodet_plus_m")', "WithRelu()")
    names: dict[str, Any] = {"WithRelu": WithRelu}
    exec(code.replace("nanodet-plus-m_416", path.stem), names)
    np.testing.assert_array_equal(names["detector"].last.weight.detach().flatten(), arrays[2][0])


@pytest.mark.parametrize("half", [True, False])
@torch.no_grad()
def test_loaded_network_computes_the_convolutions_of_the_file(tmp_path: Path, half: bool):
    path, arrays = write(tmp_path, half=half)
    (w1, b1), (w2, b2), (w3, b3) = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in arrays]

    model = WithRelu()
    load_ncnn(model, path, bgr=True)
    x = torch.randn(2, 3, 13, 17)
    out = nn.functional.leaky_relu(nn.functional.conv2d(x.flip(1), w1.view(4, 3, 3, 3), b1, 2, 1), 0.1)
    out = nn.functional.relu(nn.functional.conv2d(out, w2.view(4, 1, 3, 5), b2, 1, (1, 2), groups=4)).sigmoid()
    torch.testing.assert_close(model(x), nn.functional.conv2d(out, w3.view(3, 4, 1, 1), b3), rtol=1e-5, atol=1e-5)
    load_ncnn(model, path, bgr=False)
    torch.testing.assert_close(model.first[0].weight, w1.view(4, 3, 3, 3), rtol=0, atol=0)


def test_network_of_another_kind_is_rejected(tmp_path: Path):
    path, _ = write(tmp_path)
    with pytest.raises(CheckpointError, match=r"depthwise is a convolution .*activation ReLU, and second\.0 .*none"):
        load_ncnn(Plain(), path)  # its ReLU is a function, not a layer
    with pytest.raises(CheckpointError, match="has 3 convolutions and the network 110"):
        load_ncnn(create_detector("nanodet_plus_m"), path)


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        (1, "Convolution conv 1 1 data a 0=4 1=3 6=109", "line 4: .*109 weights for 4 channels"),
        (1, "Convolution conv 1 1 data a 0=4 1=x 6=108", "line 4: .*cannot be read"),
        (1, "Convolution conv", "line 4: .*cannot be read"),
        (1, "Convolution conv 1 1 data a 0=4 1=3 6=108 8=2", "8-bit integers"),
        (1, "Convolution conv 1 1 data a 0=4 1=3 6=108 9=5", "activation has number 5"),
        (1, "Convolution conv 1 1 data a 0=4 1=3 6=108 9=2", "line 4: .*cannot be read"),
        (1, "Convolution conv 1 1 data a 0=400000000 1=3 5=1 6=3600000000", "the weights end at byte"),
        (4, "InnerProduct last 1 1 c d 0=3 2=12", "line 7: layer 'InnerProduct' is not supported"),
        (4, "Sigmoid last 1 1 c d", "describes"),
    ],
)
def test_broken_description_is_named_with_its_line(tmp_path: Path, line: int, replacement: str, message: str):
    path, _ = write(tmp_path, lines=[replacement if index == line else text for index, text in enumerate(LINES)])
    with pytest.raises(CheckpointError, match=message):
        read_ncnn(path)


def test_broken_files_are_named(tmp_path: Path):
    path, arrays = write(tmp_path)
    binary = path.with_suffix(".bin")
    content = binary.read_bytes()
    for changed, message in [
        (content[:-4], "the weights end at byte"),
        (content[:2], "cannot be read"),
        (content + b"\0\0\0\0", "describes"),
        (b"\1\2\3\4" + content[4:], "tag 0x4030201"),
    ]:
        binary.write_bytes(changed)
        with pytest.raises(CheckpointError, match=message):
            read_ncnn(path)
    binary.write_bytes(content[:4] + np.float16(np.nan).tobytes() + content[6:])
    with pytest.raises(CheckpointError, match="conv has non-finite values"):
        load_ncnn(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.1), Rest()), path)
    binary.unlink()
    with pytest.raises(CheckpointError, match=r"net\.bin cannot be read"):
        read_ncnn(path)
    path.write_text("hello")
    binary.write_bytes(content)
    with pytest.raises(CheckpointError, match="first line is not 7767517"):
        read_ncnn(path)
    assert len(arrays) == 3


class Rest(nn.Sequential):
    """The layers of ``LINES`` after the first."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(4, 4, (3, 5), 1, (1, 2), groups=4), nn.ReLU(), nn.Conv2d(4, 3, 1))


@pytest.mark.foreign
def test_nanodet_matches_ncnn():
    """Outputs of the published NanoDet-Plus-m in ncnn: NANODET_PARAM is its .param file, ncnn is installed."""
    ncnn = pytest.importorskip("ncnn")
    path = os.environ.get("NANODET_PARAM")
    if not path:
        pytest.skip("NANODET_PARAM is not set to the .param file of NanoDet-Plus-m 416")
    detector = create_detector("nanodet_plus_m")
    load_ncnn(detector, path)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.num_threads = 1
    assert net.load_param(path) == net.load_model(str(Path(path).with_suffix(".bin"))) == 0
    x = torch.randn(3, 416, 416)
    bgr, extractor = np.ascontiguousarray(x.flip(0).numpy()), net.create_extractor()
    extractor.input("data", ncnn.Mat(bgr))
    _, output = extractor.extract("output")
    expected = torch.from_numpy(np.array(output))  # (3598, 80 + 32), scores after the sigmoid
    with torch.no_grad():
        out = detector(x[None])[0]
    torch.testing.assert_close(torch.cat([out[:, :80].sigmoid(), out[:, 80:]], 1), expected, rtol=0, atol=1e-3)
