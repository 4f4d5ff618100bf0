from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_images
from PIL import Image

import ghostnets
from ghostnets.checkpoints import read_checkpoint
from ghostnets.data import evaluation_batches, open_folder
from ghostnets.errors import ImageError


@pytest.fixture
def predictor(tiny_run: Path):
    return ghostnets.load_predictor(tiny_run / "best.safetensors")


def test_recognises_what_it_was_trained_on(predictor, tmp_path: Path):
    pixels = np.random.default_rng(1).normal(60, 30, (16, 16, 3)).clip(0, 255)  # as make_images draws the dark ones
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "night.png")
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
    preprocessing = checkpoint.preprocessing
    images, _ = open_folder(tmp_path).load_split("train", preprocessing)
    paths = open_folder(tmp_path).parts["train"].paths
    evaluated = torch.cat([batch.pixels for batch in evaluation_batches(images, preprocessing, batch_size=3)])
    assert torch.equal(evaluated, torch.stack([predictor.read(path) for path in paths]))


def test_a_file_that_cannot_be_read(predictor, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError):
        predictor(tmp_path / "a.png")
