"""Augmentation: its effect, and its dependence on the seed of each image alone."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from ghostnets.data import Augmentation
from ghostnets.data.augment import derive_seed
from ghostnets.errors import DataError


def images(count: int, *, channels: int = 3, size: tuple[int, int] = (12, 12)) -> list[torch.Tensor]:
    return list(torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8))


def test_shift_and_flip_move_pixels():
    seeds = torch.randint(0, 2**62, (400,)).tolist()
    pixels = torch.zeros(400, 1, 5, 5, dtype=torch.uint8)
    pixels[:, 0, 2, 1] = 255
    moved = Augmentation(5, 1, flip=False)(pixels, seeds)
    positions = {tuple(p) for p in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert positions == {(y, x) for y in (1, 2, 3) for x in (0, 1, 2)}
    assert (moved.sum((1, 2, 3)) == 255).all()
    flipped = Augmentation(5, 0, flip=True)(pixels, seeds)
    assert 0.4 < (flipped[:, 0, 2, 3] == 255).float().mean().item() < 0.6


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shift", [4, None])
def test_result_depends_only_on_the_seed(channels: int, shift: int | None):
    augmentation = Augmentation(12, shift, 0.3, True, randaugment=2, randaugment_magnitude=27, erasing=0.5)
    batch, seeds = images(6, channels=channels), [3, 1, 4, 1, 5, 9]
    state = torch.get_rng_state()
    first = augmentation(batch, seeds)
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn from the global stream
    assert first.shape == (6, channels, 12, 12)
    assert first.dtype == torch.uint8
    torch.rand(3)
    halves = torch.cat([augmentation(batch[4:], seeds[4:]), augmentation(batch[:4], seeds[:4])])
    assert torch.equal(first, halves.roll(4, 0))
    assert not torch.equal(first, augmentation(batch, [s + 1 for s in seeds]))


def test_erasing_sets_one_rectangle_to_gray_at_the_given_rate():
    white = [torch.full((3, 20, 20), 255, dtype=torch.uint8)] * 300
    erased = Augmentation(20, 0, flip=False, erasing=0.25)(white, range(300))
    changed = (erased != 255).any(1)
    assert 0.18 < changed.flatten(1).any(1).float().mean().item() < 0.32
    for image, mask in zip(erased, changed, strict=True):
        rows, columns = mask.any(1).sum().item(), mask.any(0).sum().item()
        assert mask.sum().item() == rows * columns
        assert image[:, mask].unique().tolist() in ([114], [])


def test_randaugment_effect_grows_with_magnitude():
    batch, seeds = images(40), list(range(40))
    plain = torch.stack(batch)
    weak, strong = (
        (Augmentation(12, 0, flip=False, randaugment=2, randaugment_magnitude=m)(batch, seeds).float() - plain).abs()
        for m in (2, 28)
    )
    assert strong.mean() > 1.5 * weak.mean() > 0


def test_identity_augmentation_leaves_images_unchanged():
    nothing = Augmentation(12, 0, flip=False)
    batch = images(3)
    assert nothing.is_identity
    assert torch.equal(nothing(batch, [1, 2, 3]), torch.stack(batch))
    for other in (
        Augmentation(12, 1, flip=False),
        Augmentation(12, 0),
        Augmentation(12, None, flip=False),
        Augmentation(12, 0, flip=False, erasing=0.1),
        Augmentation(12, 0, flip=False, randaugment=1),
    ):
        assert not other.is_identity


def test_crop_is_a_region_of_the_image():
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 80, 100).contiguous()  # the value is the column
    crops = Augmentation(20, None, 0.3, flip=False)([ramp] * 20, range(20)).float()
    widths = crops[:, 0, 0].max(1).values - crops[:, 0, 0].min(1).values
    assert widths.min() > 100 * 0.3**0.5 * 0.75 * 0.7
    assert widths.max() <= 99
    assert torch.equal(tvf.horizontal_flip(crops).sort(3).values, crops.sort(3).values)


def test_shift_of_images_of_different_sizes_is_rejected():
    with pytest.raises(DataError, match="different sizes"):
        Augmentation(4, 0)([torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 5, 4, dtype=torch.uint8)], [0, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_flip_equal_torchvision_after_the_seed(channels: int):
    sizes = [(40, 52), (52, 40), (24, 24), (9, 200), (200, 9), (1, 1), (2, 3)]
    batch = [torch.randint(0, 256, (channels, *size), dtype=torch.uint8) for size in sizes * 6]
    seeds = torch.randint(0, 2**62, (len(batch),)).tolist()
    expected = []
    for image, seed in zip(batch, seeds, strict=True):
        torch.manual_seed(seed)
        crop = v2.RandomResizedCrop(24, scale=(0.2, 1.0), antialias=True)(image)
        expected.append(tvf.horizontal_flip(crop) if torch.rand(()) < 0.5 else crop)
    assert torch.equal(Augmentation(24, None, 0.2)(batch, seeds), torch.stack(expected))


@pytest.mark.parametrize(("channels", "shift"), [(3, 4), (1, 1), (3, 0)])
def test_shift_and_flip_equal_a_crop_of_the_padded_image(channels: int, shift: int):
    batch, seeds = images(20, channels=channels, size=(9, 12)), torch.randint(0, 2**62, (20,)).tolist()
    expected = []
    for image, seed in zip(batch, seeds, strict=True):
        top, left = (seed >> 1) % (2 * shift + 1), (seed >> 20) % (2 * shift + 1)
        moved = torch.nn.functional.pad(image, (shift,) * 4)[:, top : top + 9, left : left + 12]
        expected.append(moved.flip(2) if seed % 2 else moved)
    assert torch.equal(Augmentation(12, shift)(batch, seeds), torch.stack(expected))


def test_randaugment_and_erasing_equal_torchvision_after_the_seed():
    batch, seeds = images(8), list(range(8))
    expected = []
    for image, seed in zip(batch, seeds, strict=True):
        torch.manual_seed(derive_seed(seed, 1))
        expected.append(v2.RandomErasing(0.5, value=114)(v2.RandAugment(2, 20)(image)))
    augmentation = Augmentation(12, 0, flip=False, randaugment=2, randaugment_magnitude=20, erasing=0.5)
    assert torch.equal(augmentation(batch, seeds), torch.stack(expected))
