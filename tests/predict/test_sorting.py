"""``ImageSorter``: images in one folder per class."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath

import pytest

from ghostnets.artefacts import Prediction
from ghostnets.errors import ConfigurationError
from ghostnets.predict import Input, find_inputs, sorting
from ghostnets.predict.sorting import ImageSorter

CLASSES = ("cat", "dog")


def predict(inputs: Iterable[Input]) -> Iterator[list[Prediction]]:
    """Stub: the first letter of the content is that of the class; two images a batch."""
    batch: list[Prediction] = []
    for source in inputs:
        with open(source.path, "rb") as stream:
            stream.seek(source.offset)
            letter = stream.read(1)
        classes = {b"c": ("cat",), b"d": ("dog",)}.get(letter, ())
        batch.append(Prediction(source.name, classes, (1.0,) * len(classes), None if classes else "damaged"))
        if len(batch) == 2:
            yield batch
            batch = []
    yield batch


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images of two classes, two of one name, and a damaged one."""
    for name, content in [("a/1.png", "cat 1"), ("a/2.png", "dog"), ("b/1.png", "cat 2"), ("b/x.png", "?")]:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(content)
    return tmp_path / "photos"


def sort(photos: Path, out: Path, *, link: bool = False) -> ImageSorter:
    sorter = ImageSorter(out, CLASSES, link=link)
    for _ in sorter.sort(find_inputs([photos]), predict):
        pass
    return sorter


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.*"))}


@pytest.mark.parametrize("link", [False, True])
def test_images_are_sorted_under_their_names_and_collisions_are_rejected(photos: Path, tmp_path: Path, link: bool):
    sorter = sort(photos, tmp_path / "out", link=link)
    expected = {"cat/1.png": "cat 1", "dog/2.png": "dog"}
    assert contents(tmp_path / "out") == expected
    assert (tmp_path / "out" / "cat" / "1.png").is_symlink() == link
    assert sorter.counts == {"cat": 1, "dog": 1}
    assert len(sorter.problems) == 1
    assert sorter.problems[0].startswith(f"{photos}/b/1.png is not sorted: ")
    again = sort(photos, tmp_path / "out", link=link)  # resumed: nothing changes
    assert (again.counts.total(), again.problems, contents(tmp_path / "out")) == (2, sorter.problems, expected)


def test_interrupted_run_is_completed(photos: Path, tmp_path: Path):
    sort(photos, tmp_path / "out")
    (tmp_path / "out" / "cat" / "1.png").unlink()
    assert sort(photos, tmp_path / "out").counts.total() == 2
    assert (tmp_path / "out" / "cat" / "1.png").read_text() == "cat 1"


def test_images_in_shards_are_copied_and_not_linked(photos: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(photos / "a" / "1.png", "1.png")
    assert sort(tmp_path / "s.tar", tmp_path / "out").counts.total() == 1
    assert sort(tmp_path / "s.tar", tmp_path / "out").counts.total() == 1
    assert contents(tmp_path / "out") == {"cat/1.png": "cat 1"}
    linked = sort(tmp_path / "s.tar", tmp_path / "links", link=True)
    assert "cannot be linked" in linked.problems[0]
    assert not (tmp_path / "links").exists()


@pytest.mark.parametrize("name", ["..\\up", "D:other", "a\\b"])
def test_class_name_outside_of_the_folder_on_windows_is_rejected(tmp_path: Path, name: str, monkeypatch):
    ImageSorter(tmp_path / "out", [name])
    monkeypatch.setattr(sorting, "PurePath", PureWindowsPath)
    with pytest.raises(ConfigurationError, match="names of folders"):
        ImageSorter(tmp_path / "out", ["cat", name])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a/", "nul\0"])
def test_class_name_invalid_as_folder_name_is_rejected(tmp_path: Path, name: str):
    with pytest.raises(ConfigurationError, match="names of folders"):
        ImageSorter(tmp_path / "out", ["cat", name])
