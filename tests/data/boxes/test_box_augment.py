"""Augmentation with boxes: boxes follow the pixels, and choices follow the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ghostnets.data.boxes import BoxAnnotations, BoxAugmentation


def annotations(boxes: list[list[float]], width: int, height: int) -> BoxAnnotations:
    array = np.array(boxes, np.float64).reshape(-1, 4)
    number = len(array)
    areas = (array[:, 2:] - array[:, :2]).prod(1)
    crowds = np.arange(number) % 2 == 1
    return BoxAnnotations(Path("a.png"), (width, height), array, np.arange(number), crowds, areas)


def rectangles() -> tuple[torch.Tensor, BoxAnnotations]:
    """Two rectangles, one full in each of two channels."""
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    boxes = [[10, 5, 40, 35], [50, 20, 85, 55]]
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        image[channel, y0:y1, x0:x1] = 255
    return image, annotations(boxes, 90, 60)


def test_without_augmentation_image_and_boxes_are_stretched():
    image, labels = rectangles()
    plain = BoxAugmentation(120, crop=False, flip=False, color=False)
    sample = plain(image, labels, 0)
    assert sample.pixels.shape == (3, 120, 120)
    torch.testing.assert_close(sample.boxes, torch.tensor(labels.boxes).float() * torch.tensor([4 / 3, 2, 4 / 3, 2]))
    assert sample.labels.tolist() == [0, 1]
    assert sample.is_crowd.tolist() == [False, True]


@pytest.mark.parametrize("options", [{"crop": True}, {"crop": False, "zoom_out": 3.0}])
def test_boxes_follow_the_pixels(options: dict):
    image, labels = rectangles()
    augmentation = BoxAugmentation(96, color=False, **options)
    seen = set()
    for seed in range(40):
        sample = augmentation(image, labels, seed)
        seen.add(tuple(sample.boxes.flatten().round().tolist()))
        for box, label, is_crowd in zip(sample.boxes, sample.labels.tolist(), sample.is_crowd, strict=True):
            assert is_crowd == (label == 1)
            channel, others = sample.pixels[label].float(), sample.pixels[1 - label].float()
            rows, columns = ((channel - others) > 127).nonzero(as_tuple=True)  # gray canvas has no difference
            found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            torch.testing.assert_close(found.float(), box, rtol=0, atol=1.5)
    assert len(seen) > 10  # half of the images keep their size on a canvas, and half are flipped


def test_seed_determines_the_result_and_the_global_generator_is_restored():
    image, labels = rectangles()
    augmentation = BoxAugmentation(64)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, same, other = (augmentation(image, labels, seed) for seed in (5, 5, 6))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first.pixels, other.pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_background_image_is_augmented(channels: int):
    image = torch.zeros(channels, 20, 30, dtype=torch.uint8)
    sample = BoxAugmentation(64, zoom_out=2.0)(image, annotations([], 30, 20), 3)
    assert sample.pixels.shape == (channels, 64, 64)
    assert sample.boxes.shape == (0, 4)
    assert len(sample.labels) == len(sample.is_crowd) == 0


def test_boxes_below_two_pixels_are_removed_with_their_labels():
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    boxes = [[10, 10, 10.5, 40], [5, 5, 40, 40]]
    sample = BoxAugmentation(64, crop=False, flip=False)(image, annotations(boxes, 64, 64), 0)
    assert sample.labels.tolist() == [1]
    assert sample.is_crowd.tolist() == [True]
