from pathlib import Path

import pytest
import torch
from conftest import make_images
from PIL import Image

import ghostnets
from ghostnets.checkpoints import read_checkpoint
from ghostnets.data import Preprocessing, evaluation_batches, find_images
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.predict import find_files


@pytest.fixture
def predictor(tiny_run: Path):
    return ghostnets.load_predictor(tiny_run / "best.safetensors")


def test_recognises_what_it_was_trained_on(predictor, tmp_path: Path):
    Image.new("RGB", (40, 30), (30, 30, 30)).save(tmp_path / "night.png")
    answer = predictor(tmp_path / "night.png")
    assert answer.classes == ("dark", "light")
    assert answer.probabilities[0] > 0.5
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
    with Image.open(tmp_path / "night.png") as image:
        assert predictor(image).probabilities == pytest.approx(answer.probabilities)
    assert len(predictor(tmp_path / "night.png", top=1).classes) == 1


def test_predicting_and_evaluating_prepare_images_alike(predictor, tiny_run: Path, tmp_path: Path):
    make_images(tmp_path, classes={"dark": 4, "light": 4}, size=(37, 23))
    checkpoint = read_checkpoint(tiny_run / "best.safetensors")
    preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    images, _ = find_images(tmp_path).load_part("train", preprocessing)
    paths = find_images(tmp_path).parts["train"].paths
    evaluated = torch.cat([pixels for pixels, _ in evaluation_batches(images, preprocessing, batch_size=3)])
    assert torch.equal(evaluated, torch.stack([predictor.read(path) for path in paths]))


def test_a_file_that_cannot_be_read_is_a_row_and_the_others_go_on(predictor, photos: Path):
    paths = sorted((photos / "dark").glob("*.png"))[:5]
    paths[2].write_bytes(b"x")
    predictor.batch_size = 2
    answers = list(predictor.predict_files(paths))
    assert [answer.path for answer in answers] == [str(path) for path in paths]
    assert [answer.error is None for answer in answers] == [True, True, False, True, True]
    assert [a.probabilities for a in answers if not a.error] == [
        pytest.approx(predictor(path).probabilities, abs=1e-6) for i, path in enumerate(paths) if i != 2
    ]
    with pytest.raises(ImageError):
        predictor(paths[2])
    with pytest.raises(ConfigurationError, match="top is 0"):
        next(predictor.predict_files(paths, top=0))


def test_the_same_file_twice(predictor, photos: Path):
    path = next(photos.rglob("*.png"))
    assert len(list(predictor.predict_files([path, path]))) == 2


def test_finding_files(photos: Path):
    assert len(find_files([photos])) == 40
    assert find_files([photos / "dark" / "003.png"]) == [photos / "dark" / "003.png"]
    with pytest.raises(DataError, match="there is no image or folder"):
        find_files([photos / "no"])
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        find_files([photos / "empty"])
