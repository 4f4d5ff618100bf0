"""Which images are in a batch: each once, wherever one starts, and however many share it."""

from typing import Any

import pytest
import torch

from ghostnets.data import ArrayDataset, Augmentation, TrainingBatches, evaluation_batches
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import Preprocessing

UNCHANGED = Augmentation(8, 0, flip=False)


def numbered(count: int, side: int = 8) -> ArrayDataset:
    """Image i has the value i everywhere."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, side, side).contiguous()
    return ArrayDataset(pixels, torch.arange(count) % 3)


def batches(images: ArrayDataset, augmentation: Augmentation | None = UNCHANGED, **arguments: Any) -> TrainingBatches:
    return TrainingBatches(images, augmentation, **{"batch_size": 4, "seed": 0, "epoch": 0, **arguments})


def drawn(images: ArrayDataset, start: int = 0, **arguments: Any) -> list[torch.Tensor]:
    return [batch.pixels for batch in batches(images, **arguments).stream(start)]


def test_an_epoch_shows_each_image_once_with_its_label_and_number():
    seen = []
    for batch in batches(numbered(12)).stream():
        values = batch.pixels[:, 0, 0, 0].long()
        assert torch.equal(batch.labels, values % 3)
        assert torch.equal(batch.indices, values)
        seen += values.tolist()
    assert sorted(seen) == list(range(12))
    assert seen != list(range(12))


def test_the_last_batch_that_is_not_full_is_left_out_unless_it_is_the_only_one():
    assert [len(batch) for batch in drawn(numbered(11))] == [4, 4]
    assert [len(batch) for batch in drawn(numbered(3))] == [3]


def test_order_depends_on_seed_and_epoch_alone():
    first = torch.cat(drawn(numbered(12)))
    torch.rand(5)
    assert torch.equal(torch.cat(drawn(numbered(12))), first)
    assert not torch.equal(torch.cat(drawn(numbered(12), epoch=1)), first)
    assert not torch.equal(torch.cat(drawn(numbered(12), seed=1)), first)


@pytest.mark.parametrize("augmentation", [Augmentation(8, 2), Augmentation(6, None, 0.3, erasing=0.5)])
def test_starting_in_the_middle_continues_exactly(augmentation: Augmentation):
    images = ArrayDataset(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.zeros(12, dtype=torch.long))
    whole = drawn(images, augmentation=augmentation)
    state = torch.get_rng_state()
    rest = drawn(images, 1, augmentation=augmentation)
    assert torch.equal(state, torch.get_rng_state())
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(parts: int):
    images = ArrayDataset(torch.randint(0, 256, (13, 3, 8, 8), dtype=torch.uint8), torch.arange(13))
    options: dict[str, Any] = {"augmentation": Augmentation(8, 2, erasing=0.5), "batch_size": 5}
    shares = zip(*(batches(images, part=part, parts=parts, **options).stream() for part in range(parts)), strict=True)
    for whole, share in zip(batches(images, **options).stream(), shares, strict=True):
        for field in whole._fields:
            assert torch.equal(getattr(whole, field), torch.cat([getattr(part, field) for part in share]))
    with pytest.raises(ConfigurationError, match="cannot be shared by 6"):
        batches(images, part=0, parts=6, **options)


def test_workers_give_the_same_batches():
    images = ArrayDataset(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.arange(12))
    epoch = batches(images, Augmentation(6, None, 0.3))
    for alone, worked in zip(epoch.stream(1), epoch.stream(1, workers=1), strict=True):
        assert torch.equal(alone.pixels, worked.pixels)
        assert torch.equal(alone.indices, worked.indices)


def test_balanced_drawing_gives_rare_classes_their_share():
    labels = torch.tensor([0] * 3 + [2] * 57 + [4] * 540)  # 1 and 3 have no image
    images = ArrayDataset(torch.zeros(600, 1, 8, 8, dtype=torch.uint8), labels)
    epoch = batches(images, batch_size=600, balanced=True)
    (batch,) = epoch.stream()
    counts = batch.labels.bincount(minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert all(160 < count < 240 for count in counts[[0, 2, 4]].tolist())
    assert torch.equal(batch.labels, labels[batch.indices])
    assert batch.indices[batch.labels == 0].unique().tolist() == [0, 1, 2]


def test_evaluation_goes_through_all_images_in_order_in_any_number_of_parts():
    images, preprocessing = numbered(11), Preprocessing(8, 8, (0.0,), (1.0,))
    for parts in (1, 2, 12):
        seen = [
            batch.indices
            for part in range(parts)
            for batch in evaluation_batches(images, preprocessing, batch_size=4, part=part, parts=parts)
        ]
        assert torch.cat(seen).tolist() == list(range(11))
