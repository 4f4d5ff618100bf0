"""Order, errors and bounds of what goes through the workers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from known_network import brightness, grey_images
from PIL import Image

from ghostnets.errors import ArtefactError
from ghostnets.predict import Input, Prediction, answers, find_inputs, predict_images
from ghostnets.predict.answers import BATCH_SIZE, BATCHES_AHEAD


@pytest.fixture
def network():
    return brightness()


def predicted(network, *arguments: object, **options: object) -> list[Prediction]:
    found = predict_images(network, find_inputs([str(argument) for argument in arguments]), **{"top": 2, **options})
    return [answer for batch in found for answer in batch]


@pytest.mark.parametrize("workers", [1, 3])
def test_answers_in_order(network, tmp_path: Path, workers: int):
    paths = grey_images(tmp_path / "x", 4 * BATCH_SIZE + 5)
    found = predicted(network, tmp_path / "x", workers=workers)
    assert [answer.path for answer in found] == list(map(str, paths))
    for index, answer in enumerate(found):
        value = index * 37 % 256 / 255
        powers = np.exp([-8 * abs(value - target) for target in (0, 0.5, 1)])
        order = np.argsort(-powers)[:2]
        assert answer.classes == tuple(("dark", "middling", "light")[label] for label in order)
        assert answer.probabilities == pytest.approx(powers[order] / powers.sum(), abs=1e-5)
        assert (answer.error, answer.features) == (None, None)


def test_unreadable_images_are_rows_wherever_they_stand(network, tmp_path: Path):
    paths = grey_images(tmp_path / "x", BATCH_SIZE * 2 + 3)
    sound = predicted(network, tmp_path / "x", top=1)
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
    found = predicted(network, tmp_path / "x", top=1)
    for index, (before, after) in enumerate(zip(sound, found, strict=True)):
        if index in damaged:
            assert (after.path, after.classes, after.probabilities) == (before.path, (), ())
            assert str(paths[index]) in str(after.error)
        else:
            assert after == before


def test_the_same_image_twice(network, tmp_path: Path):
    (path,) = grey_images(tmp_path, 1)
    first, second = predicted(network, path, path)
    assert first == second


def test_features(network, tmp_path: Path):
    grey_images(tmp_path / "x", 3)
    values = [37 * index / 255 for index in range(3)]
    found = np.stack([answer.features for answer in predicted(network, tmp_path / "x", features=True)])
    np.testing.assert_allclose(found, [[value, 1 - value] for value in values], atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_little_is_in_flight_however_many_there_are(network, monkeypatch, workers: int):
    taken = 0

    def endless() -> Iterator[Input]:
        nonlocal taken
        for index in range(5000):
            taken += 1
            yield Input(str(index), "nowhere")

    monkeypatch.setattr(answers, "read_input", lambda *_: np.zeros((8, 8, 3), np.uint8))
    given = most = 0
    for batch in predict_images(network, endless(), top=1, workers=workers):
        most = max(most, taken - given)
        given += len(batch)
    assert given == 5000
    assert most <= BATCHES_AHEAD * workers * BATCH_SIZE


def test_an_error_of_the_network_is_told(network, tmp_path: Path, monkeypatch):
    grey_images(tmp_path / "x", 100)
    monkeypatch.setattr(network, "_run", lambda x: 1 / 0)
    with pytest.raises(ArtefactError, match="division by zero"):
        predicted(network, tmp_path / "x")
