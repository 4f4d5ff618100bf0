"""``ghostnets check``: table, JSON, page and exit code."""

import json
from pathlib import Path

import pytest
from conftest import make_images
from PIL import Image

from ghostnets.cli.main import main


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A data set with two leaks, one of them of another class, and an unreadable file."""
    data = tmp_path / "photos"
    make_images(data / "train", classes={"cat": 3, "dog": 3})
    make_images(data / "val", classes={"<dog>": 1})
    (data / "val" / "<dog>").rename(data / "val" / "dog")
    first = sorted((data / "train" / "dog").iterdir())[0]
    (data / "val" / "dog" / "copy.png").write_bytes(first.read_bytes())
    (data / "train" / "cat" / "<b>.png").write_bytes(b"nothing")
    return data


def test_check_prints_counts_and_findings(leaky: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(leaky)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["class", "train", "val"],
        ["cat", "4", "0"],
        ["dog", "3", "2"],
        ["images", "7", "2"],
    ]
    assert "unreadable     1" in lines
    assert "leaks          2" in lines
    assert lines[lines.index("leaks          2") + 1].strip().startswith("The same file is in two splits")
    assert "conflicts      1" in lines
    assert "copy.png (val, dog)" in printed


def test_check_without_findings_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_images(tmp_path / "my photos", classes={"cat": 2})
    assert main(["check", str(tmp_path / "my photos"), "--threshold", "0"]) == 0
    assert f"nothing found; train with: ghostnets train '{tmp_path}/my photos'" in capsys.readouterr().err


def test_check_reads_boxes_and_names_broken_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_images(tmp_path / "images", classes={"train": 3, "val": 1})
    labels = {
        "train/000": "0 0.5 0.5 0.5 0.5\n1 0.3 0.3 0.2 0.2\n1 0.6 0.6 0.2 0.2\n1 0.9 0.9 0.5 0.5",
        "val/000": "0 0.5 0.5 0.5 0.5",
    }
    for name, text in labels.items():
        file = tmp_path / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    (tmp_path / "images" / "val" / "000.png").write_bytes((tmp_path / "images" / "train" / "000.png").read_bytes())
    page = tmp_path / "check.html"
    assert main(["check", str(tmp_path), "--threshold", "0", "--out", str(page)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["class", "train", "val"],
        ["cat", "1", "in", "1", "1", "in", "1"],
        ["dog", "2", "in", "1", "0", "in", "0"],
        ["images", "3", "1"],
    ]
    broken = lines.index("broken labels  1")
    assert f"{tmp_path}/labels/train/000.txt, line 4: the box" in lines[broken + 1]
    assert "leaks          1" in lines
    assert "2 of 3 images in train have no boxes" in printed.err
    assert "line 4: the box" in page.read_text(encoding="utf-8")
    assert main(["check", str(tmp_path), "--json", "--strict"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["boxes"] == {"cat": {"train": 1, "val": 1}, "dog": {"train": 2, "val": 0}}
    assert [sentence.partition(": ")[0] for sentence in found["broken"]] == [f"{tmp_path}/labels/train/000.txt, line 4"]
    assert main(["check", str(tmp_path), "--task", "segment"]) == 1
    assert "has no folder images with a folder masks beside it" in capsys.readouterr().err


def test_check_reads_masks_and_names_broken_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        make_images(tmp_path / split, classes={"images": 3})
        (tmp_path / split / "masks").mkdir()
        for number, image in enumerate(sorted((tmp_path / split / "images").iterdir())):
            side = 16 if (split, number) != ("val", 2) else 8
            Image.new("L", (side, side), number % 2).save(tmp_path / split / "masks" / image.name)
    assert main(["check", str(tmp_path), "--threshold", "0"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["class", "train", "val"],
        ["class", "0", "2", "1"],
        ["class", "1", "1", "1"],
        ["images", "3", "2"],
    ]
    broken = lines.index(["broken", "labels", "1"])
    assert " ".join(lines[broken + 1]).startswith(f"{tmp_path}/val/masks/002.png: it has 8 x 8 pixels")
    assert ["leaks", "2"] in lines  # the images are equal in both splits


def test_check_writes_json_and_page_and_fails_if_strict(leaky: Path, capsys: pytest.CaptureFixture[str]):
    page = leaky.parent / "check.html"
    assert main(["check", str(leaky), "--json", "--out", str(page), "--strict"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["groups"][0]["kind"], found["groups"][0]["crosses_splits"]) == ("exact", True)
    assert [entry["class"] for entry in found["unreadable"]] == ["cat"]
    html = page.read_text(encoding="utf-8")
    assert "<b>.png" not in html
    assert "&lt;b&gt;.png cannot be read" in html
    assert "Leaks (2)" in html
    assert html.count("data:image/jpeg;base64,") >= 7
    assert f'<a href="{leaky.name}/' in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no folder missing"),
        (["fashion-mnist"], "has no files here"),
        ([".", "--threshold", "16"], "it must be from 0 to 15 bits"),
    ],
)
def test_check_rejects_invalid_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["check", *arguments]) == 1
    assert message in capsys.readouterr().err
