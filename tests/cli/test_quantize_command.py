"""``ghostnets quantize``: files of several runtimes from one call, the checkpoint, the report."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from conftest import make_images, randomized

from ghostnets.artefacts import load_detector, open_model
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.cli import compression
from ghostnets.cli.main import main
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a Ghost-ResNet-20 with random weights, weights of timm's test network, and 32 images."""
    folder = tmp_path_factory.mktemp("quantize")
    torch.manual_seed(0)
    make_images(folder / "images", classes={"a": 16, "b": 16})
    model = randomized(create_model("ghost_resnet20", num_classes=3))
    preprocessing = Preprocessing.standard(32, 3)
    checkpoint = Checkpoint("ghost_resnet20", {"num_classes": 3}, model.state_dict(), ("a", "b", "c"), preprocessing)
    save_checkpoint(folder / "net.safetensors", checkpoint)
    torch.save(randomized(timm.create_model("test_resnet", num_classes=4)).state_dict(), folder / "timm.pth")
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_checkpoint_and_engine_file_are_written_and_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    out = folder / "int8.safetensors"
    line = ["quantize", folder / "net.safetensors", folder / "images", "--out", out]
    assert run(*line, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.with_suffix(".json").read_text())
    names = [
        "float32",
        "plain int8 in the engine, minmax",
        "plain int8 in the engine, percentile",
        "engine: int8.engine",
    ]
    assert [row["name"] for row in report["agreement"]] == names
    assert all(0 <= row["low"] <= row["share"] <= row["high"] <= 1 for row in report["agreement"])
    assert report["images"] == {"fitted": 24, "compared": 8}
    assert report["agreement"][0]["share"] == 1
    assert all(row["labelled"] == 8 for row in report["agreement"])
    original, files = read_checkpoint(folder / "net.safetensors"), [*sorted((folder / "images").rglob("*.png"))][::4]
    pixels = [original.preprocessing.center(original.preprocessing.read(file)) for file in files]
    with torch.no_grad():
        classes = original.build()(original.preprocessing.normalize(torch.stack(pixels))).argmax(1).tolist()
    right = [original.class_names[index] == file.parent.name for index, file in zip(classes, files, strict=True)]
    assert report["agreement"][0]["accuracy"]["share"] == sum(right) / 8
    checkpoint = read_checkpoint(out)
    assert list(checkpoint.float_layers) == report["float_layers"]
    assert set(checkpoint.state_dict) == set(read_checkpoint(folder / "net.safetensors").state_dict)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with torch.no_grad():
        x = checkpoint.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        expected = checkpoint.build()(x).numpy()
    got = open_model(out.with_suffix(".engine"), threads=1).run(pixels).scores
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()
    assert run(*line) == 1
    assert "exists; choose another name, or add --overwrite" in capsys.readouterr().err


def test_detector_is_compared_by_its_objects(tiny_detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = make_images(tmp_path / "images", classes={"a": 6, "b": 6}, size=(90, 60))
    out = tmp_path / "int8.safetensors"
    assert run("quantize", tiny_detector, images, "--out", out, "--float-share", 0) == 0
    text = capsys.readouterr().out
    assert "objects that the original finds too" in text
    report = json.loads(out.with_suffix(".json").read_text())
    assert [row["name"] for row in report["agreement"]][-1] == "engine: int8.engine"
    assert all(0 <= row["share"] <= 1 and row["of"] > 0 for row in report["agreement"])
    assert report["agreement"][-1]["share"] >= 0.8
    files = sorted(images.rglob("*.png"))[::4]
    expected, found = (load_detector(path, threads=1)(files) for path in (tiny_detector, out.with_suffix(".engine")))
    number = sum(len(one.labels) for one in (*expected, *found))
    assert report["agreement"][-1]["of"] == number
    assert read_checkpoint(out, task="detect").float_layers == ()


def test_network_of_timm_gives_files_of_three_runtimes_with_the_same_layers_in_float(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """At 64 instead of 160 pixels, at which ghostify is tested."""
    monkeypatch.setattr(compression, "_library_preprocessing", lambda *_: Preprocessing.standard(64, 3))
    out = folder / "timm.safetensors"
    line = ["quantize", "timm:test_resnet", folder / "images", "--weights", folder / "timm.pth", "--out", out]
    assert run(*line, "--formats", "engine,onnx,openvino", "--float-share", 0.9) == 0
    assert "Calibrated with 24 images, compared on 8 others." in capsys.readouterr().out
    layers = read_checkpoint(out).float_layers
    assert layers
    graph = onnx.load(out.with_suffix(".onnx")).graph
    floats = {name for node in graph.node if node.op_type in ("Conv", "Gemm") for name in node.input}
    assert all(floats & {f"network.{layer}.weight", f"{layer}.weight"} for layer in layers)  # no DequantizeLinear
    assert any(node.op_type == "DequantizeLinear" for node in graph.node)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    scores = [open_model(out.with_suffix(suffix), threads=1).run(pixels).scores for suffix in (".onnx", ".xml")]
    assert np.abs(scores[0] - scores[1]).max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--formats", "engine,coreml"], "coreml"),
        (["--float-share", "1"], "--float-share is 1.0"),
        (["--method", "mse"], "mse"),
        (["--most", "4"], "--most is 4"),
    ],
)
def test_invalid_options_fail_early(
    folder: Path, tmp_path: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    line = ["quantize", folder / "net.safetensors", folder / "images", "--out", tmp_path / "x.safetensors"]
    assert run(*line, *change) == 1
    assert message in capsys.readouterr().err
