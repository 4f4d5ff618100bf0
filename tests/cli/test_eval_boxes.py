"""``ghostnets eval`` of detectors: as training evaluates, in every runtime, with every fit, and what is rejected."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Page, make_detector, read_csv
from PIL import Image

from ghostnets.artefacts import Description, load_detector
from ghostnets.artefacts.checkpoint import describe_task
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.eval_boxes_output import Pictures
from ghostnets.cli.main import main
from ghostnets.data import DataSpec
from ghostnets.data.boxes import BoxAnnotations
from ghostnets.engine.session import is_built
from ghostnets.export.deployed import ExportJob
from ghostnets.export.engine_plan import write
from ghostnets.train.detection import evaluate_boxes

SIZES = ((90, 60), (50, 80), (64, 64))


def write_labels(root: Path, split: str, detector: Path, shift: float, threshold: float = 0.5) -> None:
    """Label noise with what a detector finds in it, without a share of the width of each second box, on its left."""
    (root / split / "images").mkdir(parents=True)
    (root / split / "labels").mkdir()
    find = load_detector(detector, threads=1, threshold=threshold)
    for index, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(index).integers(60 * index, 100 + 70 * index, (height, width, 3), np.uint8)
        path = root / split / "images" / f"{index}.png"
        Image.fromarray(pixels).save(path)
        found, rows = find(path), []
        for number, (label, box) in enumerate(zip(found.labels, found.boxes.astype(float), strict=True)):
            x_min, y_min, x_max, y_max = box / [width, height, width, height]
            x_min += (number % 2) * shift * (x_max - x_min)
            if x_max > x_min and y_max > y_min:
                values = ((x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min)
                rows.append(" ".join([str(label), *map(repr, map(float, values))]))
        (root / split / "labels" / f"{index}.txt").write_text("\n".join(rows))
    places = "".join(f"{path.name}: {path.name}/images\n" for path in sorted(root.iterdir()) if path.is_dir())
    (root / "data.yaml").write_text(f"{places}names: [fish, shark]\n")


@pytest.fixture(scope="module")
def labelled(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "noise"
    write_labels(root, "test", tiny_detector, 0.33)
    return root


def evaluate(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["eval", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_are_those_of_training(tiny_detector: Path, labelled: Path, capsys):
    found = evaluate(capsys, tiny_detector, labelled)
    checkpoint = read_checkpoint(tiny_detector, task="detect")
    source = DataSpec(labelled, task="detect").open(network_classes=checkpoint.class_names)
    images, _ = source.load_split("test", checkpoint.preprocessing)
    expected = evaluate_boxes(checkpoint.build(), images, checkpoint.preprocessing, checkpoint.class_names)
    assert found["part"] == "test"
    assert 0.05 < found["mean_average_precision"] < 0.95
    for name, value in expected.to_dict().items():
        if name == "classes":
            for row, other in zip(found[name], value, strict=True):
                assert row == {key: pytest.approx(x, abs=1e-6) for key, x in other.items()}
        elif name == "confusion":
            assert found[name] == value
        elif name != "loss":
            assert found[name] == pytest.approx(value, abs=1e-6)
    assert found["mean_average_precision_large"] is None  # no image has 96 x 96 pixels
    assert {row["path"] for row in found["mistakes"]} <= {str(path) for path in labelled.rglob("*.png")}


@pytest.mark.skipif(not is_built(), reason="the engine was not built")
def test_engine_plan_and_page(tiny_detector: Path, labelled: Path, tmp_path: Path, capsys):
    checkpoint, plan = read_checkpoint(tiny_detector, task="detect"), tmp_path / "fish.engine"
    names, preprocessing = checkpoint.class_names, checkpoint.preprocessing
    detector = describe_task("detect", checkpoint.build())
    description = Description(checkpoint.architecture, checkpoint.arguments, names, preprocessing, **detector)
    write(ExportJob(checkpoint, description, np.zeros((0, 64, 64, 3), np.uint8)), plan)
    expected = evaluate(capsys, tiny_detector, labelled)
    page, out = tmp_path / "page.html", tmp_path / "rows.csv"
    found = evaluate(capsys, plan, labelled, "--part", "all", "--page", page, "--out", out)
    assert found["runtime"].startswith("ghostnets engine")
    assert found["mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=1e-6)
    rows = read_csv(out)
    labels = [len(path.read_text().splitlines()) for path in sorted((labelled / "test" / "labels").iterdir())]
    assert [int(row["found"]) + int(row["missed"]) for row in rows] == labels
    content = page.read_text()
    assert re.search(r"<h3>Confusion</h3>(.|\n)*<bdi>no object</bdi></th><td>\d+</td>", content)
    Page(content)
    assert "Fewest mistakes" in content
    assert "Reproduce this evaluation" in content
    assert "raining boxes" not in content
    assert "raining curves" not in content
    assert main(["eval", str(plan), str(labelled)]) == 0
    printed = capsys.readouterr()
    assert f"mAP {expected['mean_average_precision']:.1%}" in printed.out
    assert "whether these are training images is unknown" in printed.err


def test_letterboxed_boxes_are_those_of_the_original(tmp_path: Path, capsys):
    detector = make_detector(tmp_path / "letterbox.safetensors", fit="letterbox")
    write_labels(tmp_path / "data", "val", detector, 0.0, threshold=0.05)
    found = evaluate(capsys, detector, tmp_path / "data")
    assert found["part"] == "val"
    assert found["mean_average_precision"] == pytest.approx(1)  # the labels are its own boxes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tta", "flip"], "is a detector, for which there is no --tta"),
        (["--calibrate"], "is a detector, for which there is no --calibrate"),
        (["--figure", "x.png"], "is a detector, for which there is no --figure"),
        (["--part", "val"], "has no split 'val'; it has test"),
    ],
)
def test_what_detectors_have_not_is_rejected(tiny_detector: Path, labelled: Path, options: list, message: str, capsys):
    assert main(["eval", str(tiny_detector), str(labelled), *options]) == 1
    assert message in capsys.readouterr().err


def test_other_classes_and_unreadable_images(tiny_detector: Path, labelled: Path, tmp_path: Path, capsys):
    write_labels(tmp_path, "test", tiny_detector, 0.3)
    path = tmp_path / "test" / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:3000])  # the header remains
    assert main(["eval", str(tiny_detector), str(tmp_path)]) == 1
    assert "repair them, or pass --skip-corrupt" in capsys.readouterr().err
    found = evaluate(capsys, tiny_detector, tmp_path, "--skip-corrupt")
    assert found["images"] == 2
    assert len(found["skipped"]) == 1
    yaml = tmp_path / "data.yaml"
    yaml.write_text(yaml.read_text().replace("shark", "whale"))
    assert main(["eval", str(tiny_detector), str(tmp_path), "--skip-corrupt"]) == 1
    assert "has classes that the checkpoint does not have (whale)" in capsys.readouterr().err
    assert main(["eval", str(tiny_detector), str(tmp_path / "test" / "images")]) == 1
    assert "has no labelled boxes" in capsys.readouterr().err


def test_picture_of_a_single_pixel_can_be_written_to(tmp_path: Path):
    Image.new("RGB", (1, 1), (5, 6, 7)).save(tmp_path / "dot.png")
    nothing = np.zeros(0)
    image = BoxAnnotations(tmp_path / "dot.png", (1, 1), np.zeros((0, 4)), nothing, nothing, nothing)
    assert Pictures([image], 100)[0].mul_(2).flatten().tolist() == [10, 12, 14]
