"""Sample images for verification and calibration."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image

from ghostnets.checkpoints import Checkpoint
from ghostnets.errors import DataError
from ghostnets.export.images import find_sample_images
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(20, 24)


def checkpoint(**training) -> Checkpoint:
    return Checkpoint("resnet20", {}, {}, (), PREPROCESSING, training)


def test_images_of_given_folder(tmp_path: Path):
    folder = make_images(tmp_path / "some", classes={"a": 3, "b": 9}, size=(30, 40))
    (folder / "a" / "broken.png").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image either")
    found = find_sample_images(checkpoint(), tmp_path / "net.safetensors", folder=folder, max_images=100)
    assert (found.pixels.shape, found.pixels.dtype) == ((12, 20, 20, 3), np.uint8)
    assert found.source.startswith(f"{folder}, without 1 unreadable image: ")
    assert found.is_in_domain
    expected = PREPROCESSING.center(PREPROCESSING.read(folder / "a" / "000.png")).permute(1, 2, 0).numpy()
    assert np.array_equal(found.pixels[0], expected)
    assert len(find_sample_images(checkpoint(), tmp_path / "x", folder=folder, max_images=6).pixels) == 6


def test_masks_are_no_images_of_a_segmentation_network(tmp_path: Path):
    for name, level in (("images", 200), ("masks", 1)):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("L", (9, 9), level).save(tmp_path / name / f"{index}.png")
    given = {"folder": tmp_path, "max_images": 100}
    segmenter = replace(checkpoint(), architecture="ghostseg_050")
    found = find_sample_images(segmenter, tmp_path / "net.safetensors", **given)
    assert len(found.pixels) == 3
    assert (found.pixels == 200).all()
    assert len(find_sample_images(checkpoint(), tmp_path / "net.safetensors", **given).pixels) == 6


def test_images_that_a_yaml_file_of_boxes_names(tmp_path: Path):
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "labels").mkdir()
        for index in range(2):
            Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / split / "images" / f"{index}.png")
            (tmp_path / split / "labels" / f"{index}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    file = tmp_path / "data.yaml"
    file.write_text("train: train/images\nval: val/images\nnames: [disc]\n")
    Image.new("RGB", (9, 9)).save(tmp_path / "drawing.png")  # not named
    found = find_sample_images(checkpoint(data=str(file)), tmp_path / "net.safetensors", max_images=10)
    assert (len(found.pixels), found.source, found.is_in_domain) == (4, str(file), True)
    assert (found.pixels[..., 0] == 200).all()


def test_images_of_training_run(tmp_path: Path):
    folder = make_images(tmp_path / "photos", classes={"a": 4})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": str(folder)}))
    found = find_sample_images(checkpoint(), run / "best.safetensors", max_images=10)
    assert (len(found.pixels), found.source, found.is_in_domain) == (4, str(folder), True)
    elsewhere = find_sample_images(checkpoint(data=str(folder)), tmp_path / "moved.safetensors", max_images=10)
    assert (len(elsewhere.pixels), elsewhere.is_in_domain) == (4, True)


@pytest.mark.parametrize("config", [None, "{", "[]", '{"data": 3}', '{"data": "/nowhere"}'])
def test_fallback_to_embedded_images(tmp_path: Path, config: str | None):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    found = find_sample_images(checkpoint(), tmp_path / "best.safetensors", max_images=6)
    assert (found.pixels.shape, found.source) == ((6, 20, 20, 3), "the embedded Fashion-MNIST")
    assert not found.is_in_domain
    assert len(np.unique(found.pixels)) > 50  # not blank
    own = find_sample_images(checkpoint(data="fashion-mnist"), tmp_path / "best.safetensors", max_images=6)
    assert own.is_in_domain == (config != '{"data": "/nowhere"}')


def test_folder_without_readable_image_fails(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="contains no readable image"):
        find_sample_images(checkpoint(), tmp_path / "best.safetensors", folder=tmp_path, max_images=6)
    Image.new("L", (3, 3)).save(tmp_path / "y.png")
    found = find_sample_images(checkpoint(), tmp_path / "b.safetensors", folder=tmp_path, max_images=6)
    assert len(found.pixels) == 1
    assert found.source.startswith(f"{tmp_path}, without 1 unreadable image: {tmp_path}/x.png cannot be read")
