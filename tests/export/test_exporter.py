"""Exports of tiny networks, each verified in a separate process; failed exports leave no file."""

import json
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import make_images, randomized
from graphs import SHORT_STAGES

from ghostnets import export_model
from ghostnets.artefacts import FORMATS, Classifier, open_model
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.cli.main import main
from ghostnets.errors import (
    ArtefactError,
    CheckpointError,
    ConfigurationError,
    ExportError,
    MissingExtraError,
    StorageError,
    UnknownNameError,
)
from ghostnets.export.report import TOLERANCES, Tolerance
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(40, 44, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
NAMES = ("ant", "bée", "cat")


def make_checkpoint(folder: Path, name: str, **arguments: Any) -> Path:
    torch.manual_seed(0)
    arguments = {"num_classes": 3, **arguments}
    model = randomized(create_model(name, **arguments))
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, Checkpoint(name, arguments, model.state_dict(), NAMES, PREPROCESSING))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos", classes={"a": 12, "b": 12}, size=(50, 60))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), "ghostnetv2_100", width=0.1, stages=SHORT_STAGES)


def run_network(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and features of the network itself."""
    network = read_checkpoint(path).build()
    x = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        logits = network(x)
        network.reset_classifier(0)
        return logits.numpy(), network(x).numpy()


def check_export(path: Path, source: Path, *, size: tuple[int, int] = (40, 40), tolerance: float = 1e-4) -> None:
    """Check the file's description, and its scores on images other than those of the verification."""
    model = open_model(path, threads=1)
    description, checkpoint = model.description, read_checkpoint(source)
    assert (description.architecture, description.arguments) == (checkpoint.architecture, checkpoint.arguments)
    assert description.class_names == NAMES
    assert description.preprocessing == PREPROCESSING
    assert description.source_sha256 == checkpoint.sha256
    assert {"ghostnets", "torch"} <= description.versions.keys()
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    logits, features = run_network(source, pixels)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = logits if description.output == "logits" else expected
    for got, wanted in ((Classifier(model).run(pixels).scores, expected), (model.run(pixels).scores, scores)):
        # Relative to the spread of the scores: equal numbers would be within any tolerance of their magnitude.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.ptp(wanted))
    np.testing.assert_array_equal(model.copy().run(pixels).scores, model.run(pixels).scores)
    assert model.run(pixels[:0]).scores.shape == (0, 3)
    if description.has_features:
        found = model.run(pixels, features=True).features
        np.testing.assert_allclose(found, features, rtol=0, atol=tolerance * np.abs(features).max())
    with ThreadPoolExecutor(3) as pool:
        outputs = list(pool.map(model.run, [pixels[i % 3 : i % 3 + 1] for i in range(12)]))
    for i, output in enumerate(outputs):
        expected = model.run(pixels[i % 3 : i % 3 + 1]).scores
        np.testing.assert_allclose(output.scores, expected, rtol=0, atol=1e-6)


def test_onnx_any_size_with_features_by_command(tmp_path: Path, images: Path, capsys):
    source = make_checkpoint(tmp_path, "ghostnet_100", width=0.1, stages=SHORT_STAGES)
    to = tmp_path / "out" / "net.onnx"
    line = ["export", str(source), "--format", "onnx", "--to", str(to), "--any-size", "--features", "--json"]
    assert main([*line, "--images", str(images)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((to.parent / "net.onnx.report.json").read_text(encoding="utf-8"))
    found = printed["comparison"]
    assert (printed["images"], printed["resized"]) == (24, 4)  # was 32
    assert len(printed["image_sizes"]) == 3
    assert printed["images_from"] == str(images)
    assert printed["bytes"] == to.stat().st_size
    assert found["runtime"].startswith("onnxruntime")
    assert not found["torch_was_loaded"]
    assert 0 < found["mean_difference"] <= found["max_difference"] < TOLERANCES["f32"].max_difference
    assert 0 < found["max_feature_difference"] < TOLERANCES["f32"].max_difference
    assert found["top1_agreement"] == 1
    assert found["runs"] == 40
    assert all(0 < low <= middle <= high for low, middle, high in (found["seconds"], found["torch_seconds"]))
    assert sorted(file.name for file in to.parent.iterdir()) == ["net.onnx", "net.onnx.report.json"]
    check_export(to, source, size=(71, 45))


# What a static file may contain: no computation of shapes or indices.
STATIC_OPERATORS = {
    *("Add", "AveragePool", "Cast", "Concat", "Conv", "Div", "Gemm", "GlobalAveragePool", "HardSigmoid", "Mul", "Relu"),
    *("Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Sub", "Transpose"),
}


def test_onnx_static_batch_and_opset(tmp_path: Path, images: Path, capsys):
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.2, ratio=3, stages=SHORT_STAGES)
    line = ["export", str(source), "--format", "onnx", "--batch", "4", "--opset", "14", "--images", str(images)]
    assert main(line) == 0
    assert "4 images" in capsys.readouterr().out
    path = source.with_suffix(".onnx")
    check_export(path, source)  # with 3 images and with 1
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [14]
    assert {node.op_type for node in model.graph.node} <= STATIC_OPERATORS
    values = [*model.graph.input, *model.graph.output, *onnx.shape_inference.infer_shapes(model).graph.value_info]
    assert len(values) > len(model.graph.node)
    for value in values:
        shape = value.type.tensor_type.shape.dim
        assert all(dim.HasField("dim_value") for dim in shape), f"{value.name} has a dynamic dimension"
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [4, 40, 40, 3]


def test_openvino_writes_next_to_checkpoint(tiny: Path):
    report = export_model(tiny, format="openvino")
    assert report.images_from == "the embedded Fashion-MNIST"
    assert not report.comparison.torch_was_loaded
    path = tiny.with_suffix(".xml")
    assert report.bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    check_export(path, tiny)
    with pytest.raises(ConfigurationError, match=r"takes uint8 \(N, 40, 40, 3\)"):
        open_model(path).run(np.zeros((1, 41, 40, 3), np.uint8))
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtefactError, match=r"its weights, ghostnetv2_100.bin, are not next to it"):
        open_model(path)


def test_engine(tiny: Path, images: Path):
    report = export_model(tiny, format="engine", precision="f32", images=images, features=True)
    assert not report.comparison.torch_was_loaded
    assert report.description.output == "logits"
    check_export(tiny.with_suffix(".engine"), tiny, size=(33, 47))


@pytest.mark.parametrize(("precision", "tolerance"), [(None, 0.05), ("bf16", 0.05), ("int8", 0.15)])
def test_engine_low_precision(tmp_path: Path, images: Path, precision: str | None, tolerance: float):
    source = make_checkpoint(tmp_path, "ghostnet_100", width=0.2)
    report = export_model(source, format="engine", precision=precision, images=images, features=True)
    assert report.description.precision == (precision or "auto")
    assert bool(report.comparison.choice) == (precision is None)  # the choice is reported
    assert TOLERANCES["f32"].mean_difference < report.comparison.mean_difference  # measurably another network
    assert not report.comparison.torch_was_loaded
    check_export(source.with_suffix(".engine"), source, tolerance=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("int8", 0.15)])
@pytest.mark.filterwarnings("default")  # the converter's own warnings
def test_executorch(tmp_path: Path, images: Path, precision: str, tolerance: float):
    pytest.importorskip("executorch", reason="ExecuTorch is not in the dev extra")
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.1)
    report = export_model(source, format="executorch", precision=precision, features=True, images=images)
    assert (report.comparison.mean_difference > 1e-4) == (precision == "int8")  # measurably another network
    check_export(source.with_suffix(".pte"), source, tolerance=tolerance)


@pytest.mark.filterwarnings("default")  # the converter's own warnings
def test_executorch_keeps_layers_in_float32(tmp_path: Path, images: Path):
    pytest.importorskip("executorch", reason="ExecuTorch is not in the dev extra")
    source, options = make_checkpoint(tmp_path, "resnet20"), {"format": "executorch", "precision": "int8"}
    plain = export_model(source, tmp_path / "plain.pte", **options, images=images)
    checkpoint = read_checkpoint(source)
    layers = tuple(name for name, module in checkpoint.build().named_modules() if isinstance(module, torch.nn.Conv2d))
    save_checkpoint(source, replace(checkpoint, float_layers=layers))
    mixed = export_model(source, tmp_path / "mixed.pte", **options, images=images)
    assert mixed.bytes > 3 * plain.bytes  # four bytes for each weight of a convolution; sums stay in int8
    save_checkpoint(source, replace(checkpoint, float_layers=("blocks.9",)))
    with pytest.raises(ExportError, match=r"layer blocks\.9 that is to stay in float32 is not in the traced"):
        export_model(source, tmp_path / "none.pte", **options, images=images)


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("int8", 0.15)])
@pytest.mark.filterwarnings("default")  # the converter's own warnings
def test_litert(tmp_path: Path, images: Path, precision: str, tolerance: float):
    pytest.importorskip("litert_torch", reason="LiteRT is not in the dev extra")
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.1)
    for input_type, output in (("uint8", "probabilities"), ("float32", "logits")):
        path = tmp_path / f"{output}.tflite"
        options = {"input": input_type, "output": output, "images": images, "features": True}
        report = export_model(source, path, format="litert", precision=precision, **options)
        assert not report.comparison.torch_was_loaded
        check_export(path, source, tolerance=tolerance)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-200], content[200:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"logits.tflite cannot be used: LiteRT cannot load it"):
            open_model(path)


@pytest.mark.parametrize(("name", "library"), [("ncnn", "ncnn"), ("ncnn", "pnnx"), ("mnn", "MNN")])
def test_ncnn_and_mnn_name_missing_library(tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str):
    for module in FORMATS[name].libraries:
        monkeypatch.setitem(sys.modules, module, None if module == library else ModuleType(module))
    with pytest.raises(MissingExtraError, match=rf"{library}.*{name}"):
        export_model(tiny, format=name)


@pytest.mark.parametrize(("name", "library"), [("ncnn", "pnnx"), ("mnn", "MNN")])
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("f16", 0.02)])
def test_ncnn_and_mnn(tmp_path: Path, images: Path, name: str, library: str, precision: str, tolerance: float):
    pytest.importorskip(library, reason=f"{library} is not in the dev extra")
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.2, ratio=3, stages=SHORT_STAGES)
    report = export_model(source, format=name, precision=precision, features=True, images=images)
    assert report.comparison.runtime.startswith(f"{name} ")
    assert not report.comparison.torch_was_loaded
    path = tmp_path / report.file
    assert path.name.endswith(FORMATS[name].suffix)
    check_export(path, source, tolerance=tolerance)
    assert name == "ncnn" or open_model(path).threads == 1  # MNN's threads wait by yielding
    weights = path.with_suffix(".bin") if name == "ncnn" else path
    content = weights.read_bytes()
    assert report.bytes == path.stat().st_size + (len(content) if name == "ncnn" else 0)
    for damaged in (b"", content[: len(content) // 2], content[:-200], content[200:]):
        weights.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"cannot be used: .* export it again"):
            open_model(path)


def test_onnx_int8(tmp_path: Path, images: Path):
    source = make_checkpoint(tmp_path, "resnet20")
    report = export_model(source, tmp_path / "small.onnx", precision="int8", images=images, output="logits")
    assert report.images == 6  # one in four; the others are for calibration
    assert report.comparison.max_difference > 1e-4  # another network
    assert report.bytes < source.stat().st_size / 2
    check_export(tmp_path / "small.onnx", source, tolerance=0.15)


def test_onnx_int8_keeps_what_reads_a_layer_in_float32(tmp_path: Path, images: Path):
    source, layer = make_checkpoint(tmp_path, "ghostnet_100", width=0.2), "blocks.1.0.ghost1.cheap_operation.0"
    save_checkpoint(source, replace(read_checkpoint(source), float_layers=(layer,)))
    export_model(source, tmp_path / "small.onnx", precision="int8", images=images)
    nodes = onnx.load(tmp_path / "small.onnx").graph.node
    (node,) = [node for node in nodes if f"network.{layer}.weight" in node.input]
    chain = []
    while node.op_type != "QuantizeLinear":
        chain.append(node.op_type)
        (node,) = [reader for reader in nodes if node.output[0] in reader.input]
    assert chain == ["Conv", "Relu", "Concat"]


class TestFailedExport:
    """A failed export leaves an older file unchanged, and no other file."""

    @pytest.fixture
    def source(self, tiny: Path, tmp_path: Path) -> Path:
        path = tmp_path / "net.safetensors"
        path.write_bytes(tiny.read_bytes())
        path.with_suffix(".engine").write_text("an older file")
        path.with_suffix(".xml").write_text("an older file")
        path.with_suffix(".bin").write_text("an older file")
        return path

    @pytest.fixture(autouse=True)
    def _unchanged_folder(self, source: Path):
        before = {file: file.read_bytes() for file in source.parent.iterdir()}
        yield
        assert {file: file.read_bytes() for file in source.parent.iterdir()} == before

    def test_tolerance_exceeded(self, source: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        monkeypatch.setitem(TOLERANCES, "auto", Tolerance(0.0, 0.0, 1.0))
        assert main(["export", str(source), "--format", "engine", "--images", str(images)]) == 1
        assert "differs from" in capsys.readouterr().err

    def test_invalid_file(self, source: Path, images: Path, monkeypatch: pytest.MonkeyPatch):
        engine = FORMATS["engine"]._replace(module="images")
        monkeypatch.setattr("ghostnets.export.images.write", lambda job, path: path.write_bytes(b"x"), raising=False)
        monkeypatch.setitem(FORMATS, "engine", engine)
        with pytest.raises(ExportError, match=r"failed to run in a separate process \(.*net.engine cannot be used"):
            export_model(source, format="engine", images=images)

    @pytest.mark.parametrize("name", ["engine", "torch-export"])
    def test_full_disk(self, source: Path, images: Path, name: str):
        with limited_file_size(10_000), pytest.raises(StorageError, match=r"could not write .*File too large"):
            export_model(source, format=name, images=images)

    def test_source_is_not_a_checkpoint(self, source: Path):
        with pytest.raises(CheckpointError, match=r"not a safetensors file with a description|damaged"):
            export_model(source.with_suffix(".bin"))
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            export_model("nothing.safetensors")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"precision": "bf16"}, "precision is 'bf16'; format onnx supports f32, f16, int8"),
            ({"input": "png"}, "input is 'png'; format onnx supports uint8, float32"),
            (
                {"format": "engine", "output": "probabilities"},
                "output is 'probabilities'; format engine supports logits",
            ),
            ({"format": "executorch", "any_size": True}, "supports one image size only"),
            ({"to": "net.xml"}, "does not end in .onnx"),
            ({"format": "litert", "batch": 2}, "a file of format litert takes one image"),
            ({"format": "engine", "batch": 2}, "a file of format engine takes any number of images"),
            ({"batch": 0}, "batch is 0; it must be from 1 to 1024"),
            ({"format": "openvino", "opset": 17}, "format openvino has no opset"),
            ({"opset": 13}, "opset is 13; it must be at least 14"),
            ({"precision": "int8"}, "give a folder of a few hundred images: --images FOLDER"),
        ],
        ids=str,
    )
    def test_unsupported_option(self, source: Path, arguments: dict[str, Any], message: str):
        with pytest.raises(ConfigurationError, match=message):
            export_model(source, **arguments)

    def test_unknown_format(self, source: Path):
        with pytest.raises(UnknownNameError, match="no format named 'onxx'; did you mean onnx"):
            export_model(source, format="onxx")

    def test_network_without_classifier(self, source: Path, tmp_path_factory: pytest.TempPathFactory):
        path = tmp_path_factory.mktemp("none") / "none.safetensors"
        model = create_model("resnet20", num_classes=0)
        save_checkpoint(path, Checkpoint("resnet20", {"num_classes": 0}, model.state_dict(), (), PREPROCESSING))
        with pytest.raises(ExportError, match="has no classes"):
            export_model(path)


@contextmanager
def limited_file_size(size: int):
    """Make larger writes fail, at the same place as on a full disk but with another error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_open_damaged_file_fails(tiny: Path, images: Path):
    export_model(tiny, format="torch-export", images=images)
    path = tiny.with_suffix(".pt2")
    check_export(path, tiny)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-200]):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"ghostnetv2_100.pt2 cannot be used: torch.export cannot load it"):
            open_model(path)
