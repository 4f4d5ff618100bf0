"""Inference preprocessing, without torch, against that of training and of torchvision."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvf

from ghostnets.errors import ImageError
from ghostnets.preprocessing import Preprocessing, decode, resize


def photo(path: Path, size: tuple[int, int], **options: object) -> Path:
    """Write an image of smooth shapes and some noise."""
    width, height = size
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 40
    waves = np.stack([np.sin(x + y), np.sin(x - 2 * y), np.cos(y)], 2)
    pixels = (127 + 90 * waves + generator.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(40, 40), (61, 44), (43, 90), (300, 41), (20, 23)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_inference_pixels_equal_training_pixels(tmp_path: Path, suffix: str, size: tuple[int, int], channels: int):
    path = photo(tmp_path / f"a.{suffix}", size)
    for preprocessing in (Preprocessing.standard(37, channels), Preprocessing(32, 39, *(((0.5,) * channels,) * 2))):
        found = preprocessing.pixels(path)
        expected = preprocessing.center(preprocessing.read(path))
        assert np.array_equal(found, expected.permute(1, 2, 0).numpy())
        assert found.shape == (preprocessing.image_size, preprocessing.image_size, channels)
        assert np.array_equal(preprocessing.pixels(io.BytesIO(path.read_bytes())), found)
        assert np.array_equal(preprocessing.pixels(decode(path)), found)


@pytest.mark.parametrize("size", [(40, 40), (61, 44), (43, 90), (41, 40)])
def test_center_crop_equals_torchvision(size: tuple[int, int]):
    image = torch.arange(size[0] * size[1]).reshape(1, size[1], size[0])
    for side in (40, 39, 32, 31):
        preprocessing = Preprocessing(side, 40)
        assert torch.equal(preprocessing.center(image), tvf.center_crop(image, [side, side]))


def test_resized_sizes_equal_torchvision():
    """The sizes include squares whose side times a rounded scale is less than the requested side."""
    for size in [(side, side) for side in range(16, 120)] + [(50, 49), (98, 49), (49, 147), (30, 90)]:
        image = Image.new("L", size)
        for side in (28, 49, 64, 87):
            expected = tvf.resize(image, [side]).size
            assert resize(image, channels=1, shorter_side=side).size == expected, (size, side)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 768), (1024, 768)),
        ((1280, 1023), (1280, 1023)),
        ((1500, 1024), (750, 512)),
        ((2048, 3001), (512, 751)),
        ((6000, 4096), (750, 512)),
        ((9000, 600), (9000, 600)),
    ],
)
def test_large_jpeg_is_decoded_at_reduced_scale_above_min_side(tmp_path: Path, size, expected):
    Image.new("RGB", size, (200, 30, 90)).save(tmp_path / "a.jpg")
    image = decode(tmp_path / "a.jpg", min_side=512)
    assert image.size == expected
    Image.new("RGB", (1500, 1024)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", min_side=512).size == (1500, 1024)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": 6}, {"mode": "L"}, {"mode": "CMYK"}])
def test_reduced_scale_error_is_small(tmp_path: Path, options: dict[str, object]):
    image = Image.open(photo(tmp_path / "a.png", (1600, 1400))).convert(str(options.get("mode", "RGB")))
    exif = Image.Exif()
    exif[0x0112] = options.get("exif", 1)
    image.save(tmp_path / "a.jpg", quality=90, progressive=bool(options.get("progressive")), exif=exif)
    preprocessing = Preprocessing.standard(224, 3)
    difference = preprocessing.pixels(tmp_path / "a.jpg") - preprocessing.center(
        preprocessing.read(tmp_path / "a.jpg")
    ).permute(1, 2, 0).numpy().astype(int)
    assert 0 < np.abs(difference).max() < 16
    assert np.abs(difference).mean() < 2


def test_error_of_bytes_names_the_image():
    with pytest.raises(ImageError, match=r"shard/7\.jpg cannot be read as an image \(the file is empty\)"):
        Preprocessing.standard(32, 3).pixels(io.BytesIO(), name="shard/7.jpg")
    with pytest.raises(ImageError, match="the image cannot be read"):
        Preprocessing.standard(32, 3).pixels(io.BytesIO(b"x"))


def test_inference_preprocessing_loads_no_torch(tmp_path: Path):
    photo(tmp_path / "a.jpg", (60, 50))
    code = (
        "import sys\nfrom ghostnets.preprocessing import Preprocessing, decode, IMAGE_SUFFIXES\n"
        "assert Preprocessing.standard(32, 3).pixels(sys.argv[1]).shape == (32, 32, 3)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jpg")], check=False).returncode == 0
