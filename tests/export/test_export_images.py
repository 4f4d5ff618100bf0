import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image

from ghostnets.checkpoints import Checkpoint
from ghostnets.errors import DataError
from ghostnets.export.images import find_real_images
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(20, 24)


def checkpoint(**training) -> Checkpoint:
    return Checkpoint("resnet20", {}, {}, (), PREPROCESSING, training)


def test_a_folder_that_is_named(tmp_path: Path):
    folder = make_images(tmp_path / "some", classes={"a": 3, "b": 9}, size=(30, 40))
    (folder / "a" / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    found = find_real_images(checkpoint(), tmp_path / "net.safetensors", folder=folder, most=100)
    assert (found.pixels.shape, found.pixels.dtype) == ((12, 20, 20, 3), np.uint8)
    assert (found.source, found.are_its_own) == (str(folder), True)
    expected = PREPROCESSING.center(PREPROCESSING.read(folder / "a" / "000.png")).permute(1, 2, 0).numpy()
    assert np.array_equal(found.pixels[0], expected)
    assert len(find_real_images(checkpoint(), tmp_path / "x", folder=folder, most=6).pixels) == 6


def test_the_images_of_the_run(tmp_path: Path):
    folder = make_images(tmp_path / "photos", classes={"a": 4})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": str(folder)}))
    found = find_real_images(checkpoint(), run / "best.safetensors", most=10)
    assert (len(found.pixels), found.source, found.are_its_own) == (4, str(folder), True)
    elsewhere = find_real_images(checkpoint(data=str(folder)), tmp_path / "moved.safetensors", most=10)
    assert (len(elsewhere.pixels), elsewhere.are_its_own) == (4, True)


@pytest.mark.parametrize("config", [None, "{", "[]", '{"data": 3}', '{"data": "/nowhere"}'])
def test_embedded_images_where_nothing_else_is_known(tmp_path: Path, config: str | None):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    found = find_real_images(checkpoint(), tmp_path / "best.safetensors", most=6)
    assert (found.pixels.shape, found.source) == ((6, 20, 20, 3), "the embedded Fashion-MNIST")
    assert not found.are_its_own
    assert len(np.unique(found.pixels)) > 50  # pictures, not blanks
    own = find_real_images(checkpoint(data="fashion-mnist"), tmp_path / "best.safetensors", most=6)
    assert own.are_its_own == (config != '{"data": "/nowhere"}')


def test_a_folder_without_an_image(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="holds no readable image"):
        find_real_images(checkpoint(), tmp_path / "best.safetensors", folder=tmp_path, most=6)
    Image.new("L", (3, 3)).save(tmp_path / "y.png")
    assert len(find_real_images(checkpoint(), tmp_path / "b.safetensors", folder=tmp_path, most=6).pixels) == 1
