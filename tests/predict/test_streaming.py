"""Streaming inference: order, errors, and batches in flight."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from brightness_model import brightness_classifier, gray_images
from PIL import Image

from ghostnets.artefacts import Classifier, Prediction
from ghostnets.errors import ArtefactError
from ghostnets.predict import Input, find_inputs, predict_images, streaming
from ghostnets.predict.streaming import BATCH_SIZE, BATCHES_AHEAD


@pytest.fixture
def classifier():
    return brightness_classifier()


def predict(classifier, *arguments: object, **options: object) -> list[Prediction]:
    found = predict_images(classifier, find_inputs([str(argument) for argument in arguments]), **{"top": 2, **options})
    return [prediction for batch in found for prediction in batch]


@pytest.mark.parametrize("workers", [1, 3])
def test_predict_images_keeps_input_order(classifier, tmp_path: Path, workers: int):
    paths = gray_images(tmp_path / "x", 4 * BATCH_SIZE + 5)
    found = predict(classifier, tmp_path / "x", workers=workers)
    assert [prediction.path for prediction in found] == list(map(str, paths))
    for index, prediction in enumerate(found):
        value = index * 37 % 256 / 255
        powers = np.exp([-8 * abs(value - target) for target in (0, 0.5, 1)])
        order = np.argsort(-powers)[:2]
        assert prediction.classes == tuple(("dark", "medium", "light")[label] for label in order)
        assert prediction.probabilities == pytest.approx(powers[order] / powers.sum(), abs=1e-5)
        assert (prediction.error, prediction.features) == (None, None)


def test_unreadable_images_become_predictions_with_error(classifier, tmp_path: Path):
    paths = gray_images(tmp_path / "x", BATCH_SIZE * 2 + 3)
    intact = predict(classifier, tmp_path / "x", top=1)
    Image.effect_noise((300, 300), 90).save(tmp_path / "noise.jpg")
    hostile = [
        b"",
        b"x",
        b"\x89PNG\r\n\x1a\n",
        (tmp_path / "noise.jpg").read_bytes()[:5000],
        paths[1].read_bytes()[:-30],
    ]
    damaged = {0, 7, *range(BATCH_SIZE, 2 * BATCH_SIZE)}  # a whole batch among them
    for index in damaged:
        paths[index].write_bytes(hostile[index % len(hostile)])
    found = predict(classifier, tmp_path / "x", top=1)
    for index, (before, after) in enumerate(zip(intact, found, strict=True)):
        if index in damaged:
            assert (after.path, after.classes, after.probabilities) == (before.path, (), ())
            assert str(paths[index]) in str(after.error)
        else:
            assert after == before


def test_repeated_image_gives_equal_predictions(classifier, tmp_path: Path):
    (path,) = gray_images(tmp_path, 1)
    first, second = predict(classifier, path, path)
    assert first == second


def test_predict_images_returns_features(classifier, tmp_path: Path):
    gray_images(tmp_path / "x", 3)
    values = [37 * index / 255 for index in range(3)]
    found = np.stack([prediction.features for prediction in predict(classifier, tmp_path / "x", features=True)])
    np.testing.assert_allclose(found, [[value, 1 - value] for value in values], atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_in_flight_are_bounded(classifier, monkeypatch, workers: int):
    taken = 0

    def endless() -> Iterator[Input]:
        nonlocal taken
        for index in range(5000):
            taken += 1
            yield Input(str(index), "nowhere")

    monkeypatch.setattr(streaming, "read_input", lambda *_: np.zeros((8, 8, 3), np.uint8))
    returned = most = 0
    for batch in predict_images(classifier, endless(), top=1, workers=workers):
        most = max(most, taken - returned)
        returned += len(batch)
    assert returned == 5000
    assert most <= BATCHES_AHEAD * workers * BATCH_SIZE


def test_runtime_error_is_raised(classifier, tmp_path: Path, monkeypatch):
    gray_images(tmp_path / "x", 100)
    monkeypatch.setattr(classifier.model, "_run", lambda x, features: 1 / 0)
    with pytest.raises(ArtefactError, match="division by zero"):
        predict(classifier, tmp_path / "x")


def test_images_above_the_limit_become_predictions_with_error(classifier, tmp_path: Path):
    gray_images(tmp_path / "x", 2)
    limited = Classifier(classifier.model, max_pixels=71)  # of 72
    for one in (limited, limited.copy()):
        errors = [prediction.error for prediction in predict(one, tmp_path / "x")]
        assert all("72 pixels, the limit is 71" in str(error) for error in errors)
