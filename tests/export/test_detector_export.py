"""Exports of a small detector, each run in a separate process and compared by its boxes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_once, make_images

from ghostnets import export_model
from ghostnets.artefacts import Description, load_detector
from ghostnets.artefacts.boxes import Boxes
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.main import main
from ghostnets.errors import ArtefactError, ConfigurationError
from ghostnets.export.report import BOX_TOLERANCES, ExportComparison, find_violation
from ghostnets.export.verify_boxes import compare_boxes, count_objects
from ghostnets.models.detection import create_detector
from ghostnets.preprocessing import Preprocessing

ARGUMENTS = {"num_classes": 2, "channels": 16}
TIMES = {"seconds": (1, 1, 1), "torch_seconds": (1, 1, 1), "times_as_fast": (1, 1, 1), "runs": 1, "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, photos, and the checkpoint's ONNX file."""
    return build_once(tmp_path_factory, "detector_export", export_onnx)


def export_onnx(folder: Path) -> None:
    torch.manual_seed(0)
    photos = make_images(folder / "photos", classes={"a": 3}, size=(90, 60))
    network = create_detector("ghostdet_050", **ARGUMENTS)
    for layer in network.head.predict:
        torch.nn.init.normal_(layer.weight, std=1.0)  # scores that differ
        torch.nn.init.normal_(layer.bias, std=1.0)
    source = folder / "fish.safetensors"
    preprocessing = Preprocessing.for_boxes(64, fit="letterbox")
    checkpoint = Checkpoint("ghostdet_050", ARGUMENTS, network.state_dict(), ("fish", "shark"), preprocessing)
    save_checkpoint(source, checkpoint)
    report = export_model(source, folder / "fish.onnx", images=photos)
    assert report.comparison.min_iou >= 0.99
    assert report.comparison.max_probability_difference <= 1e-3
    assert report.comparison.boxes >= 3 * 64
    assert not report.comparison.torch_was_loaded


@pytest.fixture(scope="module")
def photos(folder: Path) -> Path:
    return folder / "photos"


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    return folder / "fish.safetensors"


@pytest.fixture(scope="module")
def onnx_file(folder: Path) -> Path:
    return folder / "fish.onnx"


def check_boxes(file: Path, checkpoint: Path, photos: Path) -> None:
    images = sorted(photos.rglob("*.*"))
    expected, found = load_detector(checkpoint, threads=1)(images), load_detector(file, threads=1)(images)
    for one, other in zip(found, expected, strict=True):
        assert len(one.labels) > 0
        assert one.labels == other.labels
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)


def test_onnx_file_finds_the_boxes_of_its_checkpoint(onnx_file: Path, checkpoint: Path, photos: Path):
    check_boxes(onnx_file, checkpoint, photos)


def test_engine_plan_on_the_command_line(checkpoint: Path, photos: Path, tmp_path: Path, capsys):
    target = tmp_path / "fish.engine"
    words = ["--format", "engine", "--out", str(target), "--images", str(photos)]
    assert main(["export", str(checkpoint), *words]) == 0
    assert "lowest IoU" in capsys.readouterr().out
    check_boxes(target, checkpoint, photos)
    assert main(["predict", str(target), str(photos), "--json"]) == 0
    assert all(one["objects"] for one in json.loads(capsys.readouterr().out))


def test_openvino_file_in_f16(checkpoint: Path, photos: Path, tmp_path: Path):
    target = tmp_path / "fish.xml"
    report = export_model(checkpoint, target, format="openvino", precision="f16", images=photos)
    assert report.tolerance == BOX_TOLERANCES["f16"]
    assert report.comparison.min_iou >= 0.97
    assert report.comparison.runtime.startswith("openvino")
    found = load_detector(target, threads=1)(sorted(photos.rglob("*.*"))[0])
    assert len(found.labels) > 0


@pytest.mark.parametrize(
    ("name", "library", "suffix"),
    [
        ("litert", "litert_torch", ".tflite"),
        ("ncnn", "pnnx", ".ncnn.param"),
        ("mnn", "MNN", ".mnn"),
        ("executorch", "executorch", ".pte"),
    ],
)
@pytest.mark.filterwarnings("default")  # the converters' own warnings
def test_file_for_phones_finds_the_boxes_of_its_checkpoint(
    checkpoint: Path, photos: Path, tmp_path: Path, name: str, library: str, suffix: str
):
    pytest.importorskip(library, reason=f"{name} is not in the dev extra")
    target = tmp_path / f"fish{suffix}"
    report = export_model(checkpoint, target, format=name, images=photos)
    assert report.comparison.min_iou >= 0.99
    assert report.comparison.torch_was_loaded == (name == "executorch")
    check_boxes(target, checkpoint, photos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "holds in f32 or f16 or int8, .*omit precision bf16"),
        ({"format": "engine", "precision": "auto"}, "holds in f32 or bf16 or int8, .*omit precision auto"),
        ({"output": "probabilities"}, "omit output probabilities"),
        ({"any_size": True}, "omit any_size"),
        ({"features": True}, "omit features"),
        ({"format": "executorch", "precision": "int8"}, "format executorch holds in f32, .*omit precision int8"),
    ],
)
def test_what_detectors_have_not_is_rejected(checkpoint: Path, options: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        export_model(checkpoint, **options)


def test_another_detector_is_noticed():
    strides = (8, 16, 32, 64)
    preprocessing = Preprocessing.for_boxes(64)
    description = Description("ghostdet_050", {}, ("a", "b"), preprocessing, task="detect", strides=strides, bins=8)
    expected = np.random.default_rng(0).normal(size=(2, 85, 34)).astype(np.float32)

    def violation(actual: np.ndarray) -> str | None:
        values = {"runtime": "", "torch_was_loaded": False, "processor": "", **TIMES}
        comparison = ExportComparison(**compare_boxes(actual, expected, description), **values)
        return find_violation(comparison, replace(BOX_TOLERANCES["f32"], mean_difference=1.0, top1_agreement=0.0))

    assert violation(expected) is None
    moved, doubted = expected.copy(), expected.copy()
    moved[1, 30, 2:10] += [0, 0, 0, 0, 0, 0, 0, 9]  # the left side of one box
    assert "a box has an IoU" in str(violation(moved))
    doubted[0, 3, 0] += 0.1
    assert "a score differs by" in str(violation(doubted))


def test_count_objects_pairs_boxes_of_the_same_class_once():
    def boxes(*rows: tuple[int, float, float]) -> Boxes:
        """Objects of a class with a left and a right side, all from 0 to 10 vertically."""
        corners = np.array([[left, 0, right, 10] for _, left, right in rows], np.float32).reshape(-1, 4)
        return Boxes(corners, np.full(len(rows), 0.9, np.float32), np.array([label for label, *_ in rows], np.int64))

    expected = boxes((0, 0, 10), (1, 20, 30))
    assert count_objects([expected], [expected]) == (4, 4)
    assert count_objects([boxes((0, 1.5, 10), (1, 20, 30))], [expected]) == (4, 4)  # IoU 0.85
    assert count_objects([boxes((0, 2.5, 10), (1, 20, 30))], [expected]) == (2, 4)  # IoU 0.75
    assert count_objects([boxes((1, 0, 10), (0, 20, 30))], [expected]) == (0, 4)  # other classes
    assert count_objects([boxes((0, 0, 10), (0, 0, 10))], [expected]) == (2, 4)  # one partner each
    assert count_objects([boxes(), boxes((0, 0, 10))], [expected, boxes()]) == (0, 3)


def test_int8_is_judged_by_the_objects_that_are_found():
    values = {"runtime": "", "torch_was_loaded": False, "processor": "", **TIMES}
    good = {"max_difference": 0.4, "mean_difference": 0.01, "max_probability_difference": 0.5, "top1_agreement": 0.95}
    for agreement, message in ((0.8, "None"), (0.79, "79.0% of the objects"), (None, "neither finds an object")):
        comparison = ExportComparison(
            **good, max_feature_difference=None, min_iou=0.1, boxes=100, object_agreement=agreement, **values
        )
        assert message in str(find_violation(comparison, BOX_TOLERANCES["int8"]))


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough photos for int8."""
    return make_images(tmp_path_factory.mktemp("many"), classes={"a": 4, "b": 4}, size=(90, 60))


def test_int8_file_finds_the_objects_of_its_checkpoint(checkpoint: Path, many_photos: Path, tmp_path: Path):
    target = tmp_path / "fish.onnx"
    report = export_model(checkpoint, target, format="onnx", precision="int8", images=many_photos)
    assert report.tolerance == BOX_TOLERANCES["int8"]
    assert report.comparison.object_agreement >= 0.8
    images = sorted(many_photos.rglob("*.*"))
    expected, found = load_detector(checkpoint, threads=1)(images), load_detector(target, threads=1)(images)
    for one, other in zip(found, expected, strict=True):
        assert len(other.labels) > 0
        assert one.labels[0] == other.labels[0]
    assert report.bytes < 0.6 * checkpoint.stat().st_size


def test_changed_description_of_a_file_is_rejected(onnx_file: Path, photos: Path, tmp_path: Path):
    import onnx

    target = tmp_path / "changed.onnx"
    model = onnx.load(onnx_file)
    values = json.loads(model.metadata_props[0].value)
    for change, message in (
        ({"class_names": ["fish"]}, "but its description says"),
        ({"strides": [4, 8, 16, 32]}, "but its description says"),
        ({"bins": 0}, "bins is 0"),
        ({"task": "classify"}, "which only detectors have"),
    ):
        onnx.helper.set_model_props(model, {"ghostnets_artefact": json.dumps({**values, **change})})
        onnx.save(model, target)
        with pytest.raises((ArtefactError, ConfigurationError), match=message):
            load_detector(target, threads=1)(sorted(photos.rglob("*.*"))[0])
