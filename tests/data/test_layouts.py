"""Folders as people have them: how each is read, or why it is rejected."""

import io
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from ghostnets.data import DataSpec, describe_source, finder, open_folder
from ghostnets.data.layout import split_of
from ghostnets.errors import DataError

IMAGE = io.BytesIO()
Image.new("L", (8, 8)).save(IMAGE, "PNG")


def build(root: Path, tree: str) -> Path:
    """Create images: ``"train/a:3 b:2"`` are three in ``train/a`` and two in ``b``."""
    for entry in tree.split():
        folder, _, count = entry.partition(":")
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(int(count)):
            (root / folder / f"{number}.png").write_bytes(IMAGE.getvalue())
    return root


def read(root: Path, **options: object) -> str:
    """Classes, and the number of images of each by split."""
    source = open_folder(root, **options)
    splits = (f"{split} {'/'.join(map(str, counts))}" for split, counts in source.class_counts.items())
    return f"{','.join(source.class_names)}: {' '.join(splits)}"


@pytest.mark.parametrize(
    ("tree", "expected", "note"),
    [
        ("a:5 b:5", "a,b: train 4/4 val 1/1", None),
        ("Training/a:4 Training/b:4 Testing/a:1 Testing/b:2", "a,b: train 3/3 val 1/1 test 1/2", "Testing/ is read"),
        ("Train/a:2 Train/b:2 Val/a:1 Val/b:1", "a,b: train 2/2 val 1/1", "Val/ is read as the val split"),
        ("training/a:2 training/b:2 validation/a:1 validation/b:1", "a,b: train 2/2 val 1/1", None),
        ("train/a:2 train/b:2 dev/a:1 dev/b:1", "a,b: train 2/2 val 1/1", "dev/ is read as the val split"),
        ("training_set/a:2 training_set/b:2 test-set/a:1 test-set/b:1", "a,b: train 1/1 val 1/1 test 1/1", None),
        ("seg_train/seg_train/a:2 seg_train/seg_train/b:2 seg_test/seg_test/a:1 seg_test/seg_test/b:1 seg_pred:3",
         "a,b: train 1/1 val 1/1 test 1/1", "seg_pred/ (neither train, val nor test)"),
        ("train/train/a:2 train/train/b:2 val/a:1 val/b:1", "a,b: train 2/2 val 1/1", "train/train/ is read"),
        ("photos/train/a:2 photos/train/b:2 photos/val/a:1 photos/val/b:1", "a,b: train 2/2 val 1/1", "with images in"),
        ("photos/a:5 photos/b:5", "a,b: train 4/4 val 1/1", "the data are read from"),
        ("train/a:5 train/b:5 test:3", "a,b: train 4/4 val 1/1", "left out: test/ (3 images without class folders)"),
        ("train/a:5 train/b:5 test/images:3", "a,b: train 4/4 val 1/1", "left out: test/ (3 images without"),
        ("train/a/images:5 train/b/images:5", "a,b: train 4/4 val 1/1", "its class: a/images/0.png, the first of 10"),
        ("bus:2 car:2 train:2", "bus,car,train: train 1/1/1 val 1/1/1", "train/ is read as a class"),
        ("a:5 b:5 __MACOSX/a:3 .cache/a:3 @eaDir:2", "a,b: train 4/4 val 1/1", None),
        ("train/a:2 train/b:2 val/b:1", "a,b: train 2/2 val 0/1", "val has no image of a"),
        ("train/a:2 train/b:2 val/a:1 val/b:1 test/a:0 test/b:1", "a,b: train 2/2 val 1/1 test 0/1", "test has no"),
        ("train/a:5 train/b:5 val/a:0 val/b:0", "a,b: train 4/4 val 1/1", "val/ is empty"),
        ("train/a:2 train/b:2 val/a:1 val/b:1 extra/a:3", "a,b: train 2/2 val 1/1", "left out: extra/"),
        ("photos/a:5 photos/b:5 meta:0", "a,b: train 4/4 val 1/1", "left out: meta/ (no images)"),
        ("train/a:5 train/b:5 test/a:1 meta:0", "a,b: train 4/4 val 1/1 test 1/0", "left out: meta/ (neither"),
        ("a:5 b:5 train:0 val:0", "a,b: train 4/4 val 1/1", "left out: train/ (empty)"),
        ("x/cat:3 x/dog:2 y:5", "x,y: train 4/4 val 1/1", "have its class: x/cat/0.png, the first of 5"),
        ("Cat:5 cat:5", "Cat,cat: train 4/4 val 1/1", "the classes Cat and cat differ only in case"),
        ("a:5 b:5 .:2", "a,b: train 4/4 val 1/1", "0.png (in no class folder, the first of 2 images)"),
    ],
)  # fmt: skip
def test_layout_is_recognised_and_described(tmp_path: Path, tree: str, expected: str, note: str | None):
    root = build(tmp_path / "d", tree)
    assert read(root) == expected
    notes = "\n".join(describe_source(open_folder(root)))
    assert (note or "a") in notes
    if note is None:
        assert "left out" not in notes


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ("Fold1/a:2 Fold1/b:2 Fold2/a:2 Fold2/b:2", r"two ways: as the classes Fold1, Fold2, or as splits .* a, b"),
        (
            "train/steam:2 train/diesel:2 bus:2 car:2",
            r"as the classes bus, car, train, or as the split train/",
        ),
        ("val/a:2 val/b:2 test/a:1 test/b:1", r"has val/, test/ but no train/"),
        ("train:5 test:2", r"has test/, train/, but no class folders"),
        ("train/a:2 train/b:2 val/a:1 valid/a:1 valid/b:1", r"2 folders of val images \(val, valid\)"),
        ("train/a:2 train/b:2 val/a:1 val/c:1", r"val has the classes c, which .*train does not have"),
        ("a:5 b:0", r"has no image in b"),
        (
            "f0/train/a:2 f0/train/b:2 f1/train/a:2 f1/train/b:2",
            r"or as several data sets with splits \(train\)",
        ),
        (".:3", r"3 images but no class folders; it must contain one folder of images per class, or a table"),
        ("a:5", r"single class \(a\)"),
    ],
)
def test_layout_without_a_sensible_reading_is_rejected(tmp_path: Path, tree: str, sentence: str):
    with pytest.raises(DataError, match=sentence):
        open_folder(build(tmp_path / "d", tree))


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("a:1 b:5", "a,b: train 1/4 val 0/1"),
        ("a:3 b:0", "a: train 2 val 1"),
        ("a:3", "a: train 2 val 1"),
        ("test/b:2", "b: test 2"),
        ("val/a:1 val/b:1 test/b:3", "a,b: val 1/1 test 0/3"),
        ("train/c:2 train/d:2 test/a:1", "a,c,d: train 0/1/1 val 0/1/1 test 1/0/0"),
        ("a/x:2 a/y:2 b/x:1 b/y:1", "a,b: train 3/1 val 1/1"),
        ("train/x:2 bus/y:2", "bus,train: train 1/1 val 1/1"),
    ],
)
def test_evaluation_takes_any_classes_with_any_number_of_images(tmp_path: Path, tree: str, expected: str):
    classes = ("bus", "train") if "bus" in tree else ("a", "b", "c", "d")
    assert read(build(tmp_path / "d", tree), network_classes=classes) == expected


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("links", "outcome"),
    [
        ({"ants/self": "."}, "ants,bees: train 4/4 val 1/1"),
        ({"ants/all": ".."}, "ants,bees: train 4/4 val 1/1"),
        ({"all": "."}, "ants,bees: train 4/4 val 1/1"),
        ({"ants/again": "../ants/more", "ants/more/up": ".."}, "ants,bees: train 4/4 val 1/1"),
        ({"ants/copy.png": "0.png"}, "ants,bees: train 4/4 val 1/1"),
        ({"ants/outside": "../../outside"}, "ants,bees: train 6/4 val 2/1"),
        ({"ants/outside": "../../outside", "ants/outside2": "../../outside"}, "ants,bees: train 6/4 val 2/1"),
        ({"wasps": "../outside"}, "ants,bees,wasps: train 4/4/2 val 1/1/1"),
        ({"ants/x": "../bees"}, "the same file is in two classes through a link: .*ants/x/0.png and .*bees/0.png"),
        ({"wasps": "bees"}, "the same file is in two classes"),
        ({"ants/x.png": "../bees/0.png"}, "the same file is in two classes through a link: .*bees/0.png and .*x.png"),
        ({"ants/o": "../../outside", "bees/o": "../../outside"}, "the same file is in two classes"),
    ],
)
def test_links_are_followed_without_reading_twice(tmp_path: Path, links: dict[str, str], outcome: str):
    root = build(tmp_path / "d", "ants:5 bees:5 ants/more:0")
    build(tmp_path, "outside:3")
    for name, target in links.items():
        link(root / name, target)
    if "same file" in outcome:
        with pytest.raises(DataError, match=outcome):
            open_folder(root)
    else:
        assert read(root) == outcome
        notes = "\n".join(describe_source(open_folder(root)))
        assert ("left out" in notes) == (list(links) not in (["ants/outside"], ["wasps"]))


def test_the_same_images_in_train_and_val_are_rejected(tmp_path: Path):
    root = build(tmp_path / "d", "train/a:2 train/b:2")
    link(root / "val", "train")
    with pytest.raises(DataError, match="the same file is in two splits"):
        open_folder(root)
    (root / "val").unlink()
    build(root, "val/a:1 val/b:1")
    os.link(root / "train/a/0.png", root / "val/a/hard.png")
    with pytest.raises(DataError, match="the same file is in two splits"):
        open_folder(root)
    assert read(root, network_classes=("a", "b")) == "a,b: train 2/2 val 2/1"


def test_dangling_link_is_an_unreadable_image(tmp_path: Path):
    root = build(tmp_path / "d", "a:3 b:3")
    link(root / "a/gone.png", "nowhere.png")
    assert open_folder(root).num_images == 7  # named when it is read


def test_special_files_and_other_formats_are_named(tmp_path: Path):
    root = build(tmp_path / "d", "a:3 b:3")
    os.mkfifo(root / "a" / "pipe.png")
    for name in ("a/x.cr2", "b/y.CR2", "b/notes.txt", "a/._0.png", "a/.DS_Store", "a/Thumbs.db"):
        (root / name).write_bytes(b"x")
    notes = "\n".join(open_folder(root).notes)
    assert "pipe.png (neither a file nor a folder but a pipe, socket or device)" in notes
    assert "x.cr2 (.cr2 file that cannot be read; convert it to JPEG or PNG, the first of 2)" in notes
    assert "1 file that is not an image (1 .txt)" in notes
    assert len(open_folder(root).notes) == 3


def test_unreadable_subfolder_is_rejected_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = build(tmp_path / "d", "a:3 b:3 a/locked:3")
    scandir = os.scandir

    def reject(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(finder.os, "scandir", reject)
    with pytest.raises(DataError, match=r"a/locked cannot be listed \(Permission denied\).*--skip-corrupt"):
        open_folder(root)
    source = open_folder(root, skip_corrupt=True)
    assert source.num_images == 6
    assert "locked cannot be listed" in "\n".join(source.notes)


def test_names_are_compared_after_normalisation(tmp_path: Path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root = build(tmp_path / "d", f"train/{composed}:2 train/b:2 val/{decomposed}:1 val/b:1")
    assert read(root) == f"b,{composed}: train 2/2 val 1/1"
    build(root, f"train/{decomposed}:1")
    with pytest.raises(DataError, match=r"two folders named café.*NFC and NFD"):
        open_folder(root)


@pytest.mark.parametrize("name", [b"caf\xe9/0.png", b"a/caf\xe9.png"])
def test_name_that_is_not_utf8_is_rejected(tmp_path: Path, name: bytes):
    root = build(tmp_path / "d", "a:2 b:2")
    path = root / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(IMAGE.getvalue())
    with pytest.raises(DataError, match=r"caf\\xe9.* is not UTF-8; rename it") as rejected:
        open_folder(root)
    str(rejected.value).encode()


def test_identity_follows_names_sizes_and_classes_not_the_place(tmp_path: Path):
    one, other = (build(tmp_path / name, "a:3 b:3") for name in ("one", "other"))
    (one / "a" / "0.png").write_bytes(IMAGE.getvalue() + b"longer")
    (other / "a" / "0.png").write_bytes(IMAGE.getvalue() + b"longer")
    identity = open_folder(one).identity
    assert open_folder(other).identity == identity
    (other / "a" / "0.png").rename(other / "a" / "swap")
    (other / "b" / "0.png").rename(other / "a" / "0.png")
    (other / "a" / "swap").rename(other / "b" / "0.png")
    assert open_folder(other).identity != identity


@pytest.mark.parametrize("name", ["TRAIN", "Training", "train_set", "training data", "Train-Images"])
def test_split_names(name: str):
    assert split_of(name) == "train"
    assert split_of(f"steam {name}") is None
    assert split_of("trainer") is None
    assert split_of("test1") is None


def test_output_folders_are_not_classes(tmp_path: Path):
    root = build(tmp_path / "d", "a:5 b:5 runs/d-ghostnet_100:1 explain-ghostnet_100/figures:2")
    (root / "runs" / "d-ghostnet_100" / "config.json").write_text("{}")
    (root / "explain-ghostnet_100" / "explain.html").write_text("")
    assert read(root) == "a,b: train 4/4 val 1/1"
    notes = open_folder(root).notes
    assert [note.partition(" (")[2] for note in notes] == ["written by ghostnets)"] * 2
    build(root, "runs:4")
    (root / "runs" / "d-ghostnet_100" / "config.json").unlink()  # now it is a class
    assert read(root) == "a,b,runs: train 4/4/4 val 1/1/1"


def test_file_named_like_an_output_folder_is_not_one(tmp_path: Path):
    root = build(tmp_path / "d", "a:5 b:5")
    (root / "runs").write_text("a log")
    assert read(root) == "a,b: train 4/4 val 1/1"


def test_home_is_expanded_in_the_name_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    build(tmp_path / "photos", "a:5 b:5")
    assert DataSpec("~/photos").open().num_images == 10
    assert DataSpec("~/photos").location == str(tmp_path / "photos")
    with pytest.raises(DataError, match="there is no folder ~nobody-of-this-name/photos"):
        DataSpec("~nobody-of-this-name/photos").open()


def test_dangling_links_and_images_next_to_splits_are_reported(tmp_path: Path):
    root = build(tmp_path, "train/a:2 train/b:2 val/a:1 val/b:1 .:1")
    (root / "train" / "c").symlink_to("missing")
    assert {
        f"left out: {root}/train/c (link to a file or folder that does not exist)",
        f"left out: {root}/0.png (in no class folder)",
    } <= set(open_folder(root).notes)
