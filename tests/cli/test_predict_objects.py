import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.main import main
from ghostnets.models import create_model
from ghostnets.models.detection import create_detector
from ghostnets.predict.box_pictures import BoxPictures
from ghostnets.preprocessing import Preprocessing

ARGUMENTS = {"num_classes": 2, "channels": 16}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "damaged.jpg").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = create_detector("ghostdet_050", **ARGUMENTS)
    for layer in network.head.predict:
        torch.nn.init.normal_(layer.bias, std=1.0)
    path = tmp_path_factory.mktemp("net") / "fish.safetensors"
    names = ("=fish", "鮫")
    save_checkpoint(
        path, Checkpoint("ghostdet_050", ARGUMENTS, network.state_dict(), names, Preprocessing.for_boxes(64))
    )
    return path


@pytest.fixture(scope="module")
def expected(detector: Path, photos: Path) -> dict[str, int]:
    from ghostnets.artefacts import load_detector

    found = load_detector(detector, threads=1)([photos / f"{index}.png" for index in range(3)])
    assert all(one.labels for one in found)
    return {one.path: len(one.labels) for one in found}


def test_table_is_printed_with_threshold_and_suppression(detector: Path, photos: Path, expected: dict, capsys):
    assert main(["predict", str(detector), str(photos)]) == 1
    printed = capsys.readouterr()
    assert "cannot be read" in printed.out
    assert "=fish" in printed.out
    assert "score above 0.3, at most 100 per image; non-maximum suppression by class at an IoU of 0.6" in printed.err
    assert f"found {sum(expected.values())} objects in 4 images." in printed.err
    assert main(["predict", str(detector), str(photos / "0.png"), "--threshold", "1"]) == 0
    printed = capsys.readouterr()
    assert "nothing found" in printed.out
    assert "found 0 objects in 1 image; a lower --threshold shows" in printed.err


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".json"])
def test_files_hold_all_objects(detector: Path, photos: Path, expected: dict, tmp_path: Path, suffix: str):
    out = tmp_path / f"found{suffix}"
    assert main(["predict", str(detector), str(photos), "--out", str(out)]) == 1
    damaged = str(photos / "damaged.jpg")
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert {row["path"]: len(row["objects"]) for row in rows} == {**expected, damaged: 0}
        assert all(0 <= x <= 90 for row in rows for one in row["objects"] for x in one["box"][::2])
        assert "cannot be read" in next(row["error"] for row in rows if row["path"] == damaged)
        return
    if suffix == ".json":
        coco = json.loads(out.read_text())
        assert [one["name"] for one in coco["categories"]] == ["=fish", "鮫"]
        paths = {image["id"]: image["file_name"] for image in coco["images"]}
        counted = [paths[one["image_id"]] for one in coco["annotations"]]
        assert {path: counted.count(path) for path in paths.values()} == {**expected, damaged: 0}
        assert {image["width"] for image in coco["images"]} == {90, 0}
        assert all(one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3]) for one in coco["annotations"])
        assert [one["id"] for one in coco["annotations"]] == list(range(1, len(counted) + 1))
        return
    if suffix == ".csv":
        with out.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["class"] for row in rows} <= {"'=fish", "鮫", ""}  # no formula
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [sum(row["path"] == path for row in rows) for path in expected] == list(expected.values())
    empty = [row for row in rows if not row["class"]]
    assert [row["path"] for row in empty] == [damaged]
    assert "cannot be read" in empty[0]["error"]


def test_pictures_have_boxes_and_lie_under_the_paths_of_their_images(
    detector: Path, photos: Path, expected: dict, tmp_path: Path, capsys
):
    assert main(["predict", str(detector), str(photos / "*.png"), "--draw", str(tmp_path / "drawn"), "--json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 3
    assert "pictures show 鮫 as no. 2" in printed.err
    assert "drew 3 pictures" in printed.err
    drawn = tmp_path / "drawn" / photos.relative_to("/") / "0.png.jpg"
    with Image.open(photos / "0.png") as before, Image.open(drawn) as after:
        assert after.size == before.size
        assert np.abs(np.asarray(after, int) - np.asarray(before.convert("RGB"), int)).mean() > 10


def test_box_is_drawn_at_its_position():
    from ghostnets.artefacts import DetectedObjects

    image = Image.new("RGB", (200, 100), "white")
    pictures = BoxPictures(Path("unused"), ["fish"], max_pixels=10**6)
    box = np.array([[50, 40, 150, 90]], np.float32)
    pictures.draw(image, DetectedObjects("", (200, 100), box, (0.9,), (0,), ("fish",)))
    pixels = np.asarray(image)
    blue = (0, 0x72, 0xB2)
    for y, x in ((90, 100), (65, 50), (65, 150), (40, 100)):
        assert tuple(pixels[y, x]) == blue
    assert (pixels[45:88, 60:140] == 255).all()
    assert (pixels[25:40, 50:90] != 255).any()  # the name is above the box


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "--out", "x.jsonl"], "is a detector, and --features is for other networks"),
        (["--top", "3"], "is a detector, and --top is for other networks"),
        (["--tta", "flip"], "is a detector, and --tta is for other networks"),
        (["--sort-into", "sorted"], "is a detector, and --sort-into is for other networks"),
        (["--masks", "masks"], "is a detector, and --masks is for other networks"),
    ],
)
def test_options_of_classifiers_are_rejected(detector: Path, photos: Path, options: list, message: str, capsys):
    assert main(["predict", str(detector), str(photos / "0.png"), *options]) == 1
    assert message in capsys.readouterr().err


def test_options_of_detectors_are_rejected_for_a_classifier(photos: Path, tmp_path: Path, capsys):
    arguments = {"num_classes": 2, "width": 0.1}
    weights = create_model("ghostnet_050", **arguments).state_dict()
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, Checkpoint("ghostnet_050", arguments, weights, ("a", "b"), Preprocessing(16, 16)))
    for option, value, message in (
        ("--draw", tmp_path / "drawn", "is a classifier, and --draw is for detectors and segmentation networks"),
        ("--masks", tmp_path / "masks", "is a classifier, and --masks is for segmentation networks"),
        ("--out", tmp_path / "a.json", "its suffix must be one of .csv, .jsonl, .parquet"),
    ):
        assert main(["predict", str(path), str(photos / "0.png"), option, str(value)]) == 1
        assert message in capsys.readouterr().err
    assert main(["predict", str(path), str(photos), "--draw", str(photos / "inside")]) == 1
    assert "--draw" in capsys.readouterr().err
