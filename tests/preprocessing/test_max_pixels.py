"""The limit of pixels, one value for every command."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image

from ghostnets.artefacts.description import Description
from ghostnets.data import DataSpec, open_folder, write_shards
from ghostnets.errors import ConfigurationError, DataError, ImageError
from ghostnets.preprocessing import Preprocessing, decode
from ghostnets.train import Recipe
from ghostnets.train.run_config import RunConfig

LIMITED = Preprocessing(8, 8, max_pixels=100)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of 8 x 8 pixels, and one of 20 x 20 in each class."""
    make_images(tmp_path / "photos", classes={"a": 4, "b": 4}, size=(8, 8))
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / "photos" / name / "large.png")
    return tmp_path / "photos"


def test_limit_holds_for_every_reader(photos: Path, tmp_path: Path):
    large = photos / "a" / "large.png"
    for read in (LIMITED.read, LIMITED.pixels):
        with pytest.raises(ImageError, match=r"large.png has 400 pixels, the limit is 100; .* \(--max-pixels\)"):
            read(large)
    with pytest.raises(DataError, match="2 of 10 images cannot be read"):
        open_folder(photos).load(LIMITED)
    with pytest.raises(DataError, match="2 of 10 images cannot be read"):
        write_shards(open_folder(photos), tmp_path / "shards", max_pixels=100)
    source, _ = write_shards(open_folder(photos), tmp_path / "shards")
    images, _ = source.load_split("train", LIMITED)
    with pytest.raises(ImageError, match="--max-pixels"):
        [images[i] for i in range(len(images))]
    with pytest.raises(ConfigurationError, match="max_pixels is 0"):
        Preprocessing(8, 8, max_pixels=0)


def test_limit_above_that_of_pillow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for pixels in (np.zeros((9, 9, 3), np.uint8), np.zeros((2, 40, 3), np.uint8)):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "png")
        assert decode(stream.getvalue()).size == pixels.shape[1::-1]
        assert Preprocessing(2, 2).pixels(stream.getvalue()).shape == (2, 2, 3)


def test_limit_is_stored_with_a_run_but_not_with_weights():
    assert "max_pixels" not in LIMITED.to_dict()
    assert Preprocessing.from_dict(LIMITED.to_dict() | {"max_pixels": 10**12}).max_pixels == Preprocessing.max_pixels
    description = Description("ghostnet_050", {}, ("a", "b"), LIMITED)
    assert "max_pixels" not in description.to_json()
    config = RunConfig("photos", Recipe(), {}, LIMITED)
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.preprocessing == LIMITED
    assert again.data_spec == DataSpec("photos", max_pixels=100)
