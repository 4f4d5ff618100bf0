"""Samples of folders and shards, for explanations and exports."""

from pathlib import Path

import pytest
import torch
from conftest import make_images, serve_folder

from ghostnets.cli.explain import ExplainCommand, Subject, _load_images
from ghostnets.data import find_sample, open_folder, spread, write_shards
from ghostnets.errors import DataError
from ghostnets.export.images import find_sample_images
from ghostnets.predict import find_inputs
from ghostnets.predict.inputs import read_input
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    make_images(root / "train", classes={"a": 6, "b": 6}, size=(8, 8))
    make_images(root / "Validation", classes={"a": 3, "b": 3}, size=(8, 8))
    return root


@pytest.fixture(scope="module")
def shards(folder: Path) -> Path:
    write_shards(open_folder(folder), folder.with_name("shards"), images_per_shard=4)
    return folder.with_name("shards")


@pytest.mark.parametrize("place", ["folder", "shards"])
def test_sample_is_of_the_evaluated_split_with_labels_in_the_order_of_the_network(
    place: str, request: pytest.FixtureRequest
):
    location = str(request.getfixturevalue(place))
    sample = find_sample(location, most=100, class_names=("b", "x", "a"))
    assert (sample.split, sorted(sample.labels)) == ("val", [0, 0, 0, 2, 2, 2])
    read = []
    images, problems = sample.load(PREPROCESSING, lambda: read.append(1))
    assert (len(images), images.labels.tolist(), problems, len(read)) == (6, list(sample.labels), [], 6)
    brightness = torch.stack([images[i].float().mean() for i in range(6)])
    assert brightness[images.labels == 0].min() > brightness[images.labels == 2].max()  # b is the light class
    everything = find_sample(location, most=10, splits=())
    assert (everything.split, len(everything.labels)) == (None, 10)


def test_sample_without_splits_is_of_the_whole_folder(tmp_path: Path):
    make_images(tmp_path / "plain", classes={"a": 2, "test": 2}, size=(8, 8))
    (tmp_path / "plain" / "._x.jpg").write_bytes(b"resource fork")
    (tmp_path / "plain" / "x.nef").write_bytes(b"raw")
    sample = find_sample(str(tmp_path / "plain"), most=9, class_names=("a", "test"))
    assert (sample.split, sample.labels) == (None, (0, 0, 1, 1))
    assert ".nef file that cannot be read" in sample.notes[0]
    with pytest.raises(DataError, match="is not a folder"):
        find_sample(str(tmp_path / "nowhere"), most=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        find_sample(str(tmp_path / "empty"), most=9)


def test_export_explain_and_predict_take_shards(shards: Path, tmp_path: Path):
    samples = find_sample_images(_Trained(shards), tmp_path / "x.safetensors", max_images=5)
    assert (samples.pixels.shape, samples.source, samples.is_in_domain) == ((5, 8, 8, 3), str(shards), True)
    subject = Subject("ghostnet_100", {}, torch.nn.Identity(), PREPROCESSING, ("a", "b"), "")
    with serve_folder(shards) as url:
        for location in (str(shards), url.rstrip("/")):
            images, note = _load_images(ExplainCommand("ghostnet_100", location), subject)
            assert (sorted(images.labels.tolist()), note) == (
                [0, 0, 0, 1, 1, 1],
                "Measured on images of the val split.",
            )
    inputs = list(find_inputs([str(shards)]))
    assert len(inputs) == 18
    assert read_input(inputs[0], PREPROCESSING).shape == (8, 8, 3)


class _Trained:
    """Checkpoint of a run that was trained on these data."""

    preprocessing, task = PREPROCESSING, "classify"

    def __init__(self, data: Path) -> None:
        self.training = {"data": str(data)}


def test_spread_takes_evenly_spaced_items():
    assert spread("abcdef", 3) == ["a", "c", "e"]
    assert spread("ab", 3) == ["a", "b"]
    assert spread("", 3) == []


def test_sample_of_a_table_has_its_labels(folder: Path, tmp_path: Path):
    rows = [f"{image},{name}" for name in "ab" for image in sorted((folder / "train" / name).iterdir())]
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "\n".join(rows))
    sample = find_sample(str(table), most=4, class_names=("b", "a"))
    assert (sample.split, sample.labels) == (None, (1, 1, 0, 0))
    images, problems = sample.load(PREPROCESSING, lambda: None)
    assert (len(images), problems) == (4, [])
