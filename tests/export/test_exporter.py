"""Exports of tiny networks, each run by a process of its own; and what must leave no file."""

import json
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_images, randomized

from ghostnets import export_model
from ghostnets.artefacts import open_artefact
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.cli.main import main
from ghostnets.errors import (
    ArtefactError,
    CheckpointError,
    ConfigurationError,
    ExportError,
    StorageError,
    UnknownNameError,
)
from ghostnets.export import FORMATS
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
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), "ghostnetv2_100", width=0.1)


def network_answers(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of the network itself."""
    network = read_checkpoint(path).build()
    x = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        logits = network(x)
        network.reset_classifier(0)
        return logits.numpy(), network(x).numpy()


def check(path: Path, source: Path, *, size: tuple[int, int] = (40, 40), tolerance: float = 1e-4) -> None:
    """What the file says of itself, and its answers for other images than those that it was verified with."""
    artefact = open_artefact(path, threads=1)
    description, checkpoint = artefact.description, read_checkpoint(source)
    assert (description.architecture, description.arguments) == (checkpoint.architecture, checkpoint.arguments)
    assert description.class_names == NAMES
    assert description.preprocessing == PREPROCESSING
    assert description.source_sha256 == checkpoint.sha256
    assert {"ghostnets", "torch"} <= description.versions.keys()
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    logits, features = network_answers(source, pixels)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = logits if description.output == "logits" else expected
    for got, wanted in ((artefact.probabilities(pixels), expected), (artefact(pixels), scores)):
        # Beside their differences: numbers that are all alike would be within any tolerance of their size.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.ptp(wanted))
    np.testing.assert_array_equal(artefact.copy()(pixels), artefact(pixels))
    assert artefact(pixels[:0]).shape == (0, 3)
    if description.has_features:
        np.testing.assert_allclose(artefact.features(pixels), features, rtol=0, atol=tolerance * np.abs(features).max())
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(artefact, [pixels[i % 3 : i % 3 + 1] for i in range(12)]))
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer, artefact(pixels[i % 3 : i % 3 + 1]), rtol=0, atol=1e-6)


def test_onnx_of_any_size_with_features_from_the_command_line(tmp_path: Path, images: Path, capsys):
    source, to = make_checkpoint(tmp_path, "ghostnet_100", width=0.1), tmp_path / "out" / "net.onnx"
    line = ["export", str(source), "--format", "onnx", "--to", str(to), "--any-size", "--features", "--json"]
    assert main([*line, "--images", str(images)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((to.parent / "net.onnx.report.json").read_text(encoding="utf-8"))
    found = printed["comparison"]
    assert printed["images"] == 24 + 2 * 4
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
    check(to, source, size=(71, 45))


def test_openvino_of_a_network_beside_its_checkpoint(tiny: Path):
    report = export_model(tiny, format="openvino")
    assert report.images_from == "the embedded Fashion-MNIST"
    assert not report.comparison.torch_was_loaded
    path = tiny.with_suffix(".xml")
    assert report.bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    check(path, tiny)
    with pytest.raises(ConfigurationError, match=r"takes uint8 \(N, 40, 40, 3\)"):
        open_artefact(path)(np.zeros((1, 41, 40, 3), np.uint8))
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtefactError, match=r"its weights, ghostnetv2_100.bin, are not beside it"):
        open_artefact(path)


def test_engine(tiny: Path, images: Path):
    report = export_model(tiny, format="engine", images=images)
    assert not report.comparison.torch_was_loaded
    assert report.description.output == "logits"
    check(tiny.with_suffix(".engine"), tiny, size=(33, 47))


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("int8", 0.15)])
def test_engine_of_low_precision(tmp_path: Path, images: Path, precision: str, tolerance: float):
    source = make_checkpoint(tmp_path, "ghostnet_100", width=0.2)
    report = export_model(source, format="engine", precision=precision, images=images)
    assert report.description.precision == precision
    assert TOLERANCES["f32"].mean_difference < report.comparison.mean_difference  # another network, told as such
    assert not report.comparison.torch_was_loaded
    check(source.with_suffix(".engine"), source, tolerance=tolerance)


def test_executorch(tmp_path: Path, images: Path):
    pytest.importorskip("executorch", reason="ExecuTorch is not in the dev extra")
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.1)
    export_model(source, format="executorch", features=True, images=images)
    check(source.with_suffix(".pte"), source)


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("int8", 0.15)])
@pytest.mark.filterwarnings("default")  # the converter's own
def test_litert(tmp_path: Path, images: Path, precision: str, tolerance: float):
    pytest.importorskip("litert_torch", reason="LiteRT is not in the dev extra")
    source = make_checkpoint(tmp_path, "ghostnetv3_100", width=0.1)
    for input_type, output in (("uint8", "probabilities"), ("float32", "logits")):
        path = tmp_path / f"{output}.tflite"
        options = {"input": input_type, "output": output, "images": images, "features": True}
        report = export_model(source, path, format="litert", precision=precision, **options)
        assert not report.comparison.torch_was_loaded
        check(path, source, tolerance=tolerance)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-200], content[200:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"logits.tflite cannot be used: LiteRT refuses it"):
            open_artefact(path)


def test_int8_of_onnx(tmp_path: Path, images: Path):
    source = make_checkpoint(tmp_path, "resnet20")
    report = export_model(source, tmp_path / "small.onnx", precision="int8", images=images, output="logits")
    assert report.images == 6  # one in four; the others calibrate
    assert report.comparison.max_difference > 1e-4  # it is another network
    assert report.bytes < source.stat().st_size / 2
    check(tmp_path / "small.onnx", source, tolerance=0.15)


class TestNoFile:
    """What fails leaves the old file, if there was one, and nothing else."""

    @pytest.fixture
    def source(self, tiny: Path, tmp_path: Path) -> Path:
        path = tmp_path / "net.safetensors"
        path.write_bytes(tiny.read_bytes())
        path.with_suffix(".engine").write_text("an older file")
        path.with_suffix(".xml").write_text("an older file")
        path.with_suffix(".bin").write_text("an older file")
        return path

    @pytest.fixture(autouse=True)
    def _nothing_new(self, source: Path):
        before = {file: file.read_bytes() for file in source.parent.iterdir()}
        yield
        assert {file: file.read_bytes() for file in source.parent.iterdir()} == before

    def test_beyond_the_tolerance(self, source: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys):
        monkeypatch.setitem(TOLERANCES, "f32", Tolerance(0.0, 0.0, 1.0))
        assert main(["export", str(source), "--format", "engine", "--images", str(images)]) == 1
        assert "answers otherwise than" in capsys.readouterr().err

    def test_a_file_that_does_not_run(self, source: Path, images: Path, monkeypatch: pytest.MonkeyPatch):
        engine = FORMATS["engine"]._replace(writer="images")
        monkeypatch.setattr("ghostnets.export.images.write", lambda order, path: path.write_bytes(b"x"), raising=False)
        monkeypatch.setitem(FORMATS, "engine", engine)
        with pytest.raises(ExportError, match=r"did not run in a process of its own \(.*net.engine cannot be used"):
            export_model(source, format="engine", images=images)

    @pytest.mark.parametrize("name", ["engine", "torch-export"])
    def test_a_full_disk(self, source: Path, images: Path, name: str):
        with files_of_at_most(10_000), pytest.raises(StorageError, match=r"could not write .*File too large"):
            export_model(source, format=name, images=images)

    def test_a_source_that_is_no_checkpoint(self, source: Path):
        with pytest.raises(CheckpointError, match=r"not a safetensors file with a description|damaged"):
            export_model(source.with_suffix(".bin"))
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            export_model("nothing.safetensors")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"precision": "bf16"}, "precision is 'bf16'; the format onnx has f32, f16, int8"),
            ({"input": "png"}, "input is 'png'; the format onnx has uint8, float32"),
            (
                {"format": "engine", "output": "probabilities"},
                "output is 'probabilities'; the format engine has logits",
            ),
            ({"format": "engine", "features": True}, "the format engine holds no features"),
            ({"format": "executorch", "any_size": True}, "files of one image size alone"),
            ({"to": "net.xml"}, "its name must end in .onnx"),
            ({"precision": "int8"}, "name a folder of some hundred: --images FOLDER"),
        ],
        ids=str,
    )
    def test_what_no_format_has(self, source: Path, arguments: dict[str, Any], message: str):
        with pytest.raises(ConfigurationError, match=message):
            export_model(source, **arguments)

    def test_a_format_that_does_not_exist(self, source: Path):
        with pytest.raises(UnknownNameError, match="no format named 'onxx'; did you mean onnx"):
            export_model(source, format="onxx")

    def test_a_network_without_classes(self, source: Path, tmp_path_factory: pytest.TempPathFactory):
        path = tmp_path_factory.mktemp("none") / "none.safetensors"
        model = create_model("resnet20", num_classes=0)
        save_checkpoint(path, Checkpoint("resnet20", {"num_classes": 0}, model.state_dict(), (), PREPROCESSING))
        with pytest.raises(ExportError, match="has no classes"):
            export_model(path)


@contextmanager
def files_of_at_most(size: int):
    """Writing more into a file fails, as on a full disk; the system's error differs, the place does not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_damaged_files_are_refused(tiny: Path, images: Path):
    export_model(tiny, format="torch-export", images=images)
    path = tiny.with_suffix(".pt2")
    check(path, tiny)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-200]):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"ghostnetv2_100.pt2 cannot be used: torch.export refuses it"):
            open_artefact(path)
