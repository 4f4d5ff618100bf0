"""Examination of a data set: every kind of finding, on a folder made for it."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from test_near_duplicates import draw

from ghostnets.data.check import DataCheck, check_images
from ghostnets.data.search import find_labelled_images


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(6):
        save(draw(number), root / "train" / "ab"[number % 2] / f"{number}.jpg", quality=95)
    save(draw(0), root / "train" / "b" / "other.jpg", quality=50)  # near, another class
    save(ImageOps.mirror(draw(2)), root / "val" / "a" / "mirrored.png")  # near, another split
    save(draw(8).convert("L").resize((50, 40)), root / "val" / "b" / "8.png")
    (root / "val" / "b" / "copy.jpg").write_bytes((root / "train" / "b" / "1.jpg").read_bytes())
    (root / "train" / "a" / "bad.jpg").write_bytes(b"nothing")
    for name in "cd":
        save(Image.new("RGB", (70, 70), "gray"), root / "val" / "a" / f"{name}.bmp")  # plain, but equal files
    return root


@pytest.fixture(scope="module")
def result(folder: Path) -> DataCheck:
    return check_images(find_labelled_images(folder, network_classes=(), skip_unreadable=True))


def test_counts_sizes_and_kinds(result: DataCheck):
    assert result.counts == {"a": {"train": 4, "val": 3}, "b": {"train": 4, "val": 2}}
    assert result.describe_sizes() == {"smallest": 40, "median": 80, "largest": 80, "below_64": 1}
    assert result.kinds == {"JPEG RGB": 8, "BMP RGB": 2, "PNG RGB": 1, "PNG L": 1}
    assert (result.num_plain, result.rare_classes) == (2, [])


def test_findings(result: DataCheck, folder: Path):
    assert [reason for _, reason in result.unreadable] == [f"{folder}/train/a/bad.jpg cannot be read as an image."]
    groups = [
        (
            [Path(str(result.paths[i])).relative_to(folder).as_posix() for i in group.images],
            group.is_exact,
            group.crosses_splits,
            group.crosses_classes,
        )
        for group in result.groups
    ]
    assert groups == [
        (["train/b/1.jpg", "val/b/copy.jpg"], True, True, False),
        (["val/a/c.bmp", "val/a/d.bmp"], True, False, False),
        (["train/a/0.jpg", "train/b/other.jpg"], False, False, True),
        (["train/a/2.jpg", "val/a/mirrored.png"], False, True, False),
    ]
    assert len(result.select(exact=True, splits=True)) == len(result.select(exact=False, classes=True)) == 1
    assert result.has_findings
    assert len(json.loads(json.dumps(result.to_dict()))["groups"]) == 4


def test_images_above_the_limit_are_unreadable(folder: Path):
    found = check_images(find_labelled_images(folder / "train", network_classes=()), max_pixels=100)
    assert len(found.unreadable) == len(found.paths) == 8
    assert "raise the limit (--max-pixels)" in found.unreadable[-1][1]


def test_table_with_two_labels_of_an_image_is_a_finding(tmp_path: Path):
    for number in range(3):
        save(draw(number), tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,a\n2.png,b\n")
    found = check_images(find_labelled_images(tmp_path, network_classes=(), skip_unreadable=True))
    (group,) = found.groups
    assert (len(group.images), group.is_exact, group.crosses_classes) == (2, True, True)
