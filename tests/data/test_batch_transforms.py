"""Transforms of a batch against torchvision's, and their random parameters."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tvf

from ghostnets.data import Augmentation
from ghostnets.data.batch_transforms import draw_uniform, jitter_colors, rotate

IMAGES = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SEEDS = [3, 14, 2**62 + 15, 92]


def test_rotate_by_right_angles_equals_rot90():
    turned = rotate(IMAGES, torch.tensor([0.0, 90.0, 180.0, -90.0]))
    expected = torch.stack([IMAGES[i].rot90(k, (1, 2)) for i, k in enumerate((0, 1, 2, 3))])
    assert (turned.int() - expected.int()).abs().max() <= 1


def test_rotate_equals_torchvision_where_nothing_lies_outside():
    smooth = torch.arange(0, 40).view(1, 1, 1, -1).expand(1, 3, 30, 40).to(torch.uint8) * 6
    turned = rotate(smooth, torch.tensor([20.0]))
    expected = tvf.rotate(smooth, 20.0, interpolation=tvf.InterpolationMode.BILINEAR)
    assert (turned.int() - expected.int())[..., 10:20, 13:27].abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_colors_equals_torchvision(channels: int):
    factors = torch.tensor([[1.3, 0.7, 1.4], [0.6, 1.2, 0.0], [1.0, 1.0, 1.0], [2.0, 0.5, 0.8]])
    got = jitter_colors(IMAGES[:, :channels], factors)
    for image, (brightness, contrast, saturation), result in zip(IMAGES[:, :channels], factors, got, strict=True):
        expected = tvf.adjust_contrast(tvf.adjust_brightness(image.float() / 255, brightness.item()), contrast.item())
        expected = tvf.adjust_saturation(expected, saturation.item()) if channels == 3 else expected
        assert (result - 255 * expected).abs().max() <= 0.51


def test_draw_uniform_depends_on_seed_and_stream_alone():
    draws = torch.stack([draw_uniform(range(10_000), stream) for stream in (0, 1)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean(1) - 0.5).abs().max() < 0.02
    assert draws.corrcoef()[0, 1].abs() < 0.05
    assert torch.equal(draw_uniform([7, 3], 1), draws[1, [7, 3]])


def test_augmentation_depends_on_each_image_and_seed_alone():
    augmentation = Augmentation(9, 0, flip=False, vertical_flip=True, rotate=30, color_jitter=0.4)
    assert not augmentation.is_identity
    batch = augmentation(list(IMAGES), SEEDS)
    assert torch.equal(augmentation([IMAGES[2], IMAGES[0]], [SEEDS[2], SEEDS[0]]), batch[[2, 0]])


def test_vertical_flip_flips_half_of_the_images():
    images, seeds = [IMAGES[0]] * 200, list(range(200))
    batch = Augmentation(9, 0, flip=False, vertical_flip=True)(images, seeds)
    flipped = (batch == IMAGES[0].flip(1)).flatten(1).all(1)
    assert (flipped | (batch == IMAGES[0]).flatten(1).all(1)).all()
    assert 70 < flipped.sum() < 130
