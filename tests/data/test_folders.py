from pathlib import Path

import pytest
from conftest import make_images

from ghostnets.data import open_data, open_folder
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing

SMALL = Preprocessing.standard(16, 3)


def names(files) -> set[str]:
    return {str(p) for p in files.paths}


def test_one_folder_a_class_is_split_by_class_and_seed(tmp_path: Path):
    make_images(tmp_path, classes={"a": 10, "b": 25, "c": 2})
    folder = open_folder(tmp_path, val_share=0.2, seed=1)
    assert folder.class_names == ("a", "b", "c")
    assert list(folder.parts) == ["train", "val"]
    assert [folder.parts["val"].labels.count(i) for i in range(3)] == [2, 5, 1]
    assert not names(folder.parts["train"]) & names(folder.parts["val"])
    assert folder.count() == 37
    assert open_folder(tmp_path, val_share=0.2, seed=1) == folder
    assert open_folder(tmp_path, val_share=0.2, seed=2).parts != folder.parts


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_train_and_val(tmp_path: Path, val: str):
    make_images(tmp_path / "train", classes={"a": 3, "b": 4})
    make_images(tmp_path / val, classes={"a": 1, "b": 2})
    folder = open_folder(tmp_path)
    assert {part: len(files.paths) for part, files in folder.parts.items()} == {"train": 7, "val": 3}
    assert not folder.val_is_split_off


def test_train_and_test_keep_the_test_for_the_end(tmp_path: Path):
    make_images(tmp_path / "train", classes={"a": 10, "b": 10})
    make_images(tmp_path / "test", classes={"a": 1, "b": 2})
    folder = open_folder(tmp_path)
    assert {part: len(files.paths) for part, files in folder.parts.items()} == {"train": 16, "val": 4, "test": 3}
    assert folder.val_is_split_off


def test_subfolders_other_files_and_hidden_ones(tmp_path: Path):
    make_images(tmp_path, classes={"a": 2, "b": 2})
    make_images(tmp_path / "a", classes={"deeper": 3})
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / ".cache").mkdir()
    folder = open_folder(tmp_path)
    assert folder.count() == 7
    assert folder.ignored == 2


@pytest.mark.parametrize("grey", [True, False])
def test_grey_and_size_are_noticed(tmp_path: Path, grey: bool):
    make_images(tmp_path, classes={"a": 5, "b": 5}, size=(40, 30), grey=grey)
    folder = open_folder(tmp_path)
    assert (folder.channels, folder.typical_size) == (1 if grey else 3, 30)


def test_loading_gives_uint8_of_the_asked_size(tmp_path: Path):
    make_images(tmp_path, classes={"a": 5, "b": 5}, size=(40, 32))
    splits = open_folder(tmp_path).load(SMALL)
    assert splits.train[0].shape == (3, 16, 20)
    assert sorted(splits.train.labels.tolist()) == [0] * 4 + [1] * 4
    assert splits.test is None


def expect(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(path)


def test_folders_that_cannot_be_used(tmp_path: Path):
    expect(tmp_path / "nowhere", r"there is no folder .*nowhere")
    (tmp_path / "file").touch()
    expect(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    expect(tmp_path / "empty", "holds nothing to learn from; it must hold one folder of images a class")
    make_images(tmp_path / "flat", classes={"x": 2})
    expect(tmp_path / "flat" / "x", "holds 2 images but no folders")
    expect(tmp_path / "flat", r"has one class only \(x\)")
    (tmp_path / "flat" / "y").mkdir()
    (tmp_path / "flat" / "y" / "a.heic").touch()
    expect(tmp_path / "flat", r"has no image in y \(passed over: 1 \.heic\)")


def test_a_class_with_a_single_image_cannot_be_split(tmp_path: Path):
    make_images(tmp_path, classes={"a": 5, "b": 1})
    expect(tmp_path, "class b has a single image")


def test_parts_with_other_classes(tmp_path: Path):
    make_images(tmp_path / "train", classes={"a": 3, "b": 4})
    make_images(tmp_path / "val", classes={"a": 1, "c": 2})
    expect(tmp_path, r"has the classes a, c, but .*train has a, b")


def damage(folder: Path, count: int) -> None:
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_corrupt_images_are_named_or_left_out(photos: Path):
    damage(photos / "dark", 2)
    with pytest.raises(DataError, match=r"2 of 40 images cannot be used: .*dark/000\.png.*--skip-corrupt"):
        open_folder(photos).load(SMALL)
    splits = open_folder(photos).load(SMALL, skip_corrupt=True)
    assert len(splits.skipped) == 2
    assert len(splits.train) + len(splits.val) == 38


def test_a_class_with_nothing_but_corrupt_images(photos: Path):
    damage(photos / "dark", 20)
    with pytest.raises(DataError, match=r"no readable training image is left of dark"):
        open_folder(photos).load(SMALL, skip_corrupt=True)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the files in .*photos can be read"):
        open_folder(photos)


def test_an_unreadable_folder_of_names(tmp_path: Path):
    make_images(tmp_path, classes={"größe 1": 3, "b\nc": 3})
    assert open_folder(tmp_path).count() == 6
    assert open_folder(tmp_path).parts["val"].paths[0].exists()


def test_options_that_do_not_go_together(photos: Path):
    with pytest.raises(ConfigurationError, match=r"belong to fashion-mnist"):
        open_data(photos, full=True)
    with pytest.raises(ConfigurationError, match=r"--root goes with --full"):
        open_data("fashion-mnist", root=photos)
    with pytest.raises(ConfigurationError, match=r"val_share is 1\.5"):
        open_data(photos, val_share=1.5)
    with pytest.raises(ConfigurationError, match=r"no part 'test'"):
        open_folder(photos).load_split("test", SMALL)
