from pathlib import Path

import pytest
from conftest import make_images

from ghostnets.data import DataSource, DataSpec, open_folder, write_shards
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing

SMALL = Preprocessing.standard(16, 3)


def names(files) -> set[str]:
    return {str(p) for p in files.paths}


def test_val_is_split_off_by_class_and_seed(tmp_path: Path):
    make_images(tmp_path, classes={"a": 10, "b": 25, "c": 2})
    folder = open_folder(tmp_path, val_share=0.2, seed=1)
    assert folder.class_names == ("a", "b", "c")
    assert list(folder.splits) == ["train", "val"]
    assert [folder.splits["val"].labels.count(i) for i in range(3)] == [2, 5, 1]
    assert not names(folder.splits["train"]) & names(folder.splits["val"])
    assert folder.num_images == 37
    assert open_folder(tmp_path, val_share=0.2, seed=1) == folder
    assert open_folder(tmp_path, val_share=0.2, seed=2).splits != folder.splits


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_val_folder_is_used(tmp_path: Path, val: str):
    make_images(tmp_path / "train", classes={"a": 3, "b": 4})
    make_images(tmp_path / val, classes={"a": 1, "b": 2})
    folder = open_folder(tmp_path)
    assert {split: len(files.paths) for split, files in folder.splits.items()} == {"train": 7, "val": 3}
    assert not folder.val_from_train


def test_val_is_split_off_train_if_only_test_exists(tmp_path: Path):
    make_images(tmp_path / "train", classes={"a": 10, "b": 10})
    make_images(tmp_path / "test", classes={"a": 1, "b": 2})
    folder = open_folder(tmp_path)
    assert {split: len(files.paths) for split, files in folder.splits.items()} == {"train": 16, "val": 4, "test": 3}
    assert folder.val_from_train


def test_subfolders_are_read_and_other_files_ignored(tmp_path: Path):
    make_images(tmp_path, classes={"a": 2, "b": 2})
    make_images(tmp_path / "a", classes={"deeper": 3})
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / ".cache").mkdir()
    folder = open_folder(tmp_path)
    assert folder.num_images == 7
    nested, left_out = folder.notes
    assert nested.startswith("images in subfolders of a class folder have its class: a/deeper/000.png, the first of 3")
    assert left_out == "left out: 1 file that is not an image (1 .txt)"


@pytest.mark.parametrize("grey", [True, False])
def test_channels_and_typical_size_come_from_the_headers(tmp_path: Path, grey: bool):
    make_images(tmp_path, classes={"a": 5, "b": 5}, size=(40, 30), grey=grey)
    folder = open_folder(tmp_path)
    assert (folder.channels, folder.typical_size) == (1 if grey else 3, 30)


def test_load_resizes_the_shorter_side(tmp_path: Path):
    make_images(tmp_path, classes={"a": 5, "b": 5}, size=(40, 32))
    splits = open_folder(tmp_path).load(SMALL)
    assert splits.train[0].shape == (3, 16, 20)
    assert sorted(splits.train.labels.tolist()) == [0] * 4 + [1] * 4
    assert splits.test is None


def expect(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(path)


def test_unusable_folders_are_rejected(tmp_path: Path):
    expect(tmp_path / "nowhere", r"there is no folder .*nowhere")
    (tmp_path / "file").touch()
    expect(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    expect(tmp_path / "empty", "contains no images; it must contain one folder of images per class")
    make_images(tmp_path / "flat", classes={"x": 2})
    expect(tmp_path / "flat" / "x", "contains 2 images but no class folders")
    (tmp_path / "flat" / "labels.mat").touch()
    expect(tmp_path / "flat", r"has a single class \(x\) \(left out: labels\.mat in .*\); a classifier needs")
    (tmp_path / "flat" / "y").mkdir()
    (tmp_path / "flat" / "y" / "a.cr2").touch()
    expect(
        tmp_path / "flat",
        r"has no image in y \(left out: .*a\.cr2 \(\.cr2 file that cannot be read; convert it",
    )


def test_class_with_a_single_image_is_rejected(tmp_path: Path):
    make_images(tmp_path, classes={"a": 5, "b": 1})
    expect(tmp_path, "class b has a single image")


def test_splits_with_different_classes_are_rejected(tmp_path: Path):
    make_images(tmp_path / "train", classes={"a": 3, "b": 4})
    make_images(tmp_path / "val", classes={"a": 1, "c": 2})
    expect(tmp_path, r"val has the classes c, which .*train does not have \(it has a, b\)")


def damage(folder: Path, count: int) -> None:
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_corrupt_images_are_named_or_skipped(photos: Path):
    damage(photos / "dark", 2)
    with pytest.raises(DataError, match=r"2 of 40 images cannot be read: .*dark/000\.png.*--skip-corrupt"):
        open_folder(photos).load(SMALL)
    source = open_folder(photos, skip_corrupt=True)
    splits = source.load(SMALL)
    assert len(splits.skipped) == 2
    assert sum(len(source.load_split(name, SMALL)[1]) for name in source.split_names) == 2
    assert len(splits.train) + len(splits.val) == 38


def test_split_with_only_corrupt_images_is_rejected(photos: Path):
    """An empty validation split was said to need a smaller learning rate, as its loss is not a number."""
    (photos / "train").mkdir()
    for name in ("dark", "light"):
        (photos / name).rename(photos / "train" / name)
        make_images(photos / "val", classes={name: 1})
        damage(photos / "val" / name, 1)
    with pytest.raises(DataError, match=r"no readable image is left in the split val of .*photos"):
        open_folder(photos, skip_corrupt=True).load(SMALL)


def test_class_with_only_corrupt_images_is_rejected(photos: Path):
    damage(photos / "dark", 20)
    with pytest.raises(DataError, match=r"no readable training image is left in dark"):
        open_folder(photos, skip_corrupt=True).load(SMALL)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the files in .*photos can be read"):
        open_folder(photos)


def test_unusual_folder_names_are_read(tmp_path: Path):
    make_images(tmp_path, classes={"größe 1": 3, "b\nc": 3})
    assert open_folder(tmp_path).num_images == 6
    assert open_folder(tmp_path).splits["val"].paths[0].exists()


def test_contradictory_options_are_rejected(photos: Path):
    with pytest.raises(ConfigurationError, match=r"belong to fashion-mnist"):
        DataSpec(photos, full=True).open()
    with pytest.raises(ConfigurationError, match=r"--root needs --full"):
        DataSpec("fashion-mnist", root=photos).open()
    with pytest.raises(ConfigurationError, match=r"val_share is 1\.5"):
        DataSpec(photos).open(val_share=1.5)
    with pytest.raises(ConfigurationError, match=r"photos has no split 'test'"):
        open_folder(photos).load_split("test", SMALL)


def test_every_source_offers_the_protocol(photos: Path, tmp_path: Path):
    write_shards(open_folder(photos), tmp_path / "shards")
    for data, channels in [(photos, 3), (tmp_path / "shards", 3), ("fashion-mnist", 1)]:
        source: DataSource = DataSpec(data).open()
        preprocessing = Preprocessing.standard(source.typical_size, source.channels)
        splits = source.load(preprocessing)
        assert source.channels == channels
        for name in source.split_names:
            dataset, skipped = source.load_split(name, preprocessing)
            assert len(dataset) == len(getattr(splits, name))
            assert skipped == ()
        assert sum(len(getattr(splits, name)) for name in source.split_names) == source.num_images
        assert int(splits.train.labels.max()) + 1 == len(source.class_names)
        with pytest.raises(ConfigurationError, match="has no split 'extra'"):
            source.load_split("extra", preprocessing)
