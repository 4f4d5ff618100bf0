"""``ghostnets eval`` of segmentation networks: confusion of a known error, in every runtime, page, and rejections."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Page, read_csv
from PIL import Image

from ghostnets.artefacts import Description, load_segmenter
from ghostnets.artefacts.checkpoint import describe_task
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.engine.session import is_built
from ghostnets.export.deployed import ExportJob
from ghostnets.export.engine_plan import write
from ghostnets.preprocessing import limits

NAMES = ("land", "water", "road")
SIZES = ((90, 60), (50, 80), (64, 64))
STORED = {"water": 0, "road": 1, "land": 2}  # values of the masks: in another order than the network's classes


@pytest.fixture(scope="module")
def labelled(tiny_segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Noise with the masks of the network, but for a stripe of one class and ignored pixels, and the confusion."""
    root = tmp_path_factory.mktemp("data") / "noise"
    segment = load_segmenter(tiny_segmenter, threads=1)
    confusion = np.zeros((3, 3), int)
    for folder in ("images", "masks"):
        (root / "test" / folder).mkdir(parents=True)
    for index, (width, height) in enumerate(SIZES):
        coarse = np.random.default_rng(index).integers(0, 255, (5, 6, 3), np.uint8)
        image = root / "test" / "images" / f"{index}.png"
        Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).save(image)
        predicted = segment(image).mask
        truth = predicted.copy()
        truth[:, : 10 * index] = 2  # all of the first image is right
        truth[-5:] = 255
        for one, other in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if one != 255:
                confusion[one, other] += 1
        stored = np.array([STORED[name] for name in NAMES] + [255] * 253, np.uint8)[truth]
        Image.fromarray(stored).save(root / "test" / "masks" / f"{index}.png")
    (root / "classes.txt").write_text("\n".join(STORED) + "\n")
    return root, confusion


def evaluate(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert main(["eval", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_are_those_of_the_counted_pixels(tiny_segmenter: Path, labelled, tmp_path: Path, capsys):
    root, confusion = labelled
    page, out = tmp_path / "page.html", tmp_path / "rows.csv"
    found = evaluate(capsys, tiny_segmenter, root, "--page", page, "--out", out)
    assert found["part"] == "test"
    assert found["confusion"] == confusion.tolist()
    assert confusion[2, :2].sum() > 100
    hits, unions = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert found["pixel_accuracy"] == pytest.approx(hits.sum() / confusion.sum())
    assert found["mean_iou"] == pytest.approx((hits / unions).mean())
    assert [row["iou"] for row in found["classes"]] == pytest.approx(hits / unions)
    assert [row["accuracy"] for row in found["classes"]] == pytest.approx(hits / confusion.sum(1))
    rows = read_csv(out)
    assert [int(row["labelled_pixels"]) for row in rows] == [width * (height - 5) for width, height in SIZES]
    assert float(rows[0]["pixel_accuracy"]) == 1
    assert found["lowest_overlap"][-1]["path"].endswith("0.png")
    content = page.read_text()
    Page(content)
    for part in ("Highest overlap", "Reproduce this evaluation", "Confusion", "of the pixels", "data:image/png"):
        assert part in content
    assert "raining images" not in content
    assert "raining curves" not in content


@pytest.mark.skipif(not is_built(), reason="the engine was not built")
def test_engine_plan_on_the_console(tiny_segmenter: Path, labelled, tmp_path: Path, capsys):
    root, confusion = labelled
    checkpoint, plan = read_checkpoint(tiny_segmenter, task="segment"), tmp_path / "fields.engine"
    names, preprocessing = checkpoint.class_names, checkpoint.preprocessing
    task = describe_task("segment", checkpoint.build())
    description = Description(checkpoint.architecture, checkpoint.arguments, names, preprocessing, **task)
    write(ExportJob(checkpoint, description, np.zeros((0, 48, 48, 3), np.uint8)), plan)
    assert main(["eval", str(plan), str(root), "--part", "all"]) == 0
    printed = capsys.readouterr()
    accuracy = confusion.trace() / confusion.sum()
    assert f"pixel accuracy {accuracy:.1%}" in printed.out
    assert "of the pixels of road predicted as" in printed.out
    assert "whether these are training images is unknown" in printed.err


def test_flip_evaluates_the_masks_that_predict_writes_with_it(tiny_segmenter: Path, labelled, tmp_path: Path, capsys):
    root, _ = labelled
    page = tmp_path / "page.html"
    found = evaluate(capsys, tiny_segmenter, root, "--tta", "flip", "--page", page)
    assert found["flip"]
    assert "--tta flip" in page.read_text()
    arguments = [str(tiny_segmenter), str(root / "test" / "images"), "--tta", "flip", "--masks", str(tmp_path / "m")]
    assert main(["predict", *arguments]) == 0
    to_network = np.array([NAMES.index(name) for name in STORED] + [255] * 253, np.uint8)
    confusion = np.zeros((3, 3), int)
    for index in range(len(SIZES)):
        truth = to_network[np.array(Image.open(root / "test" / "masks" / f"{index}.png"))]
        [written] = (tmp_path / "m").rglob(f"{index}*.png")
        predicted = np.array(Image.open(written))
        np.add.at(confusion, (truth[truth != 255], predicted[truth != 255]), 1)
    assert found["confusion"] == confusion.tolist()


def test_jpeg_decoded_at_reduced_scale_is_compared_at_its_own_size(
    tiny_segmenter: Path, tmp_path: Path, monkeypatch, capsys
):
    for folder in ("images", "masks"):
        (tmp_path / "test" / folder).mkdir(parents=True)
    Image.new("RGB", (96, 64), "red").save(tmp_path / "test" / "images" / "a.jpg")
    labels = np.arange(64 * 96, dtype=np.uint8).reshape(64, 96) % 3
    Image.fromarray(labels).save(tmp_path / "test" / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES) + "\n")
    monkeypatch.setattr(limits, "MAX_MEMORY", 96 * 64 * 2)  # half of what it takes
    found = evaluate(capsys, tiny_segmenter, tmp_path, "--page", tmp_path / "page.html")
    assert np.sum(found["confusion"]) == 96 * 64
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibrate"], "is a segmentation network, for which there is no --calibrate"),
        (["--part", "val"], "has no split 'val'; it has test"),
    ],
)
def test_what_cannot_be_evaluated_is_rejected(tiny_segmenter: Path, labelled, options: list, message: str, capsys):
    assert main(["eval", str(tiny_segmenter), str(labelled[0]), *options]) == 1
    assert message in capsys.readouterr().err


def test_other_classes_and_data_without_masks(tiny_segmenter: Path, tiny_detector: Path, labelled, tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (20, 20), 0).save(tmp_path / folder / "a.png")
    (tmp_path / "classes.txt").write_text("snow\n")
    assert main(["eval", str(tiny_segmenter), str(tmp_path)]) == 1
    assert "has classes that the checkpoint does not have (snow)" in capsys.readouterr().err
    assert main(["eval", str(tiny_segmenter), str(tmp_path / "images")]) == 1
    assert "has no folder images with a folder masks beside it" in capsys.readouterr().err
    assert main(["eval", str(tiny_detector), str(labelled[0])]) == 1
    assert "has no labelled boxes" in capsys.readouterr().err
