"""``ghostnets eval``: any artefact, calibration, flipped images."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ghostnets.artefacts import FORMATS, load_classifier, open_model
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli import eval_network
from ghostnets.cli.main import main
from ghostnets.engine.session import is_built
from ghostnets.export.deployed import ExportJob


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def evaluate(run: Path, capsys: pytest.CaptureFixture[str]):
    def evaluate(file: Path, *options: str) -> dict[str, Any]:
        data = read_checkpoint(run / "best.safetensors").training["data"]
        assert main(["eval", str(file), data, *options, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return evaluate


def write(format_name: str, run: Path, **options: Any) -> Path:
    """Export without verification."""
    from ghostnets.artefacts import Description

    source, chosen = read_checkpoint(run / "best.safetensors"), FORMATS[format_name]
    description = Description(
        *(source.architecture, source.arguments, source.class_names, source.preprocessing),
        output=options.pop("output", chosen.outputs[0]),
        temperature=source.temperature,
        **options,
    )
    path = run / f"net{chosen.suffix}"
    side = source.preprocessing.image_size
    calibration = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    import_module(f"ghostnets.export.{chosen.module}").write(ExportJob(source, description, calibration), path)
    return path


@pytest.mark.skipif(not is_built(), reason="the engine was not built")
def test_exported_file_is_evaluated_on_the_split_of_its_run(run: Path, evaluate):
    expected = evaluate(run / "best.safetensors")
    found = evaluate(write("engine", run))
    assert (found["part"], found["images"]) == (expected["part"], expected["images"]) == ("val", 8)
    assert found["runtime"].startswith("ghostnets engine")
    assert found["confusion"] == expected["confusion"]
    for name in ("loss", "macro_f1", "calibration_error", "roc_area", "average_precision"):
        assert found[name] == pytest.approx(expected[name], abs=1e-4)
    assert found["classes"][0].keys() >= {"recall", "precision", "f1", "roc_area", "average_precision"}


def test_probabilities_of_a_file_are_evaluated_as_they_are():
    """A file that returns probabilities, calibrated by itself, has the losses of its probabilities."""
    probabilities = np.array([[0.8, 0.2], [0.0, 1.0]], np.float32)
    opened = SimpleNamespace(
        run=lambda pixels: SimpleNamespace(scores=probabilities),
        description=SimpleNamespace(output="probabilities", multi_label=False),
    )
    logits = eval_network._ArtefactLogits(opened)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    torch.testing.assert_close(logits.softmax(1), torch.from_numpy(probabilities))
    assert logits.isfinite().all()


def test_calibration_is_saved_and_applied(run: Path, evaluate, capsys):
    before, content = evaluate(run / "best.safetensors"), (run / "best.safetensors").read_bytes()
    assert before["temperature"] is None
    calibrated = evaluate(run / "best.safetensors", "--calibrate")
    temperature = read_checkpoint(run / "best.safetensors").temperature
    assert temperature == calibrated["temperature"] == evaluate(run / "best.safetensors")["temperature"]
    assert calibrated["loss"] < before["loss"]
    assert calibrated["top1"] == before["top1"]
    image = next(Path(read_checkpoint(run / "best.safetensors").training["data"]).rglob("*.png"))
    model = open_model(run / "best.safetensors", threads=1)
    logits = model.run(model.description.preprocessing.pixels(image)[None]).scores / temperature
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    prediction = load_classifier(run / "best.safetensors", threads=1)(image)
    assert prediction.probabilities[0] == pytest.approx(expected.max(), rel=1e-5)
    (run / "best.safetensors").write_bytes(content)
    assert evaluate(run / "best.safetensors")["loss"] == before["loss"]


def test_flip_averages_both_directions(run: Path, evaluate):
    plain, flipped = evaluate(run / "best.safetensors"), evaluate(run / "best.safetensors", "--tta", "flip")
    assert (plain["flip"], flipped["flip"]) == (False, True)
    assert flipped["loss"] != plain["loss"]
    assert flipped["loss"] == pytest.approx(plain["loss"], abs=0.2)


def test_training_images_are_rejected_for_calibration(run: Path, tmp_path: Path, capsys):
    assert main(["eval", str(run), str(tmp_path), "--calibrate", "--part", "train"]) == 1
    assert "not for a temperature; omit --part, or use val" in capsys.readouterr().err


def test_table_has_f1_and_areas(run: Path, capsys):
    data = read_checkpoint(run / "best.safetensors").training["data"]
    assert main(["eval", str(run / "best.safetensors"), data]) == 0
    out = capsys.readouterr().out
    assert "macro F1" in out
    assert "expected calibration error" in out
    assert "ROC area" in out
