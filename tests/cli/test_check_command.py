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
        ["all", "7", "2"],
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


def test_check_leaves_masks_out_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        make_images(tmp_path / split, classes={"images": 3})
        (tmp_path / split / "masks").mkdir()
        for image in (tmp_path / split / "images").iterdir():
            Image.new("L", (8, 8), 1).save(tmp_path / split / "masks" / image.name)  # equal in both splits
    assert main(["check", str(tmp_path), "--threshold", "0"]) == 0
    printed = capsys.readouterr()
    assert "masks (train/masks, val/masks) are not examined" in printed.err
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[:3] == [["class", "train", "val"], ["images", "3", "3"], ["all", "3", "3"]]
    assert ["copies", "0"] in lines


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
