"""Batches: every image once per epoch, for any start step and any number of processes."""

from typing import Any

import pytest
import torch

from ghostnets.data import ArrayDataset, Augmentation, TrainingBatches, evaluation_batches
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import Preprocessing

UNCHANGED = Augmentation(8, 0, flip=False)


def numbered(count: int, side: int = 8) -> ArrayDataset:
    """Image i has the value i in every pixel."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, side, side).contiguous()
    return ArrayDataset(pixels, torch.arange(count) % 3)


def batches(images: ArrayDataset, augmentation: Augmentation | None = UNCHANGED, **arguments: Any) -> TrainingBatches:
    return TrainingBatches(images, augmentation, **{"batch_size": 4, "seed": 0, "epoch": 0, **arguments})


def drawn(images: ArrayDataset, start: int = 0, **arguments: Any) -> list[torch.Tensor]:
    return [batch.pixels for batch in batches(images, **arguments).stream(start)]


def test_epoch_has_each_image_once_with_label_and_index():
    seen = []
    for batch in batches(numbered(12)).stream():
        values = batch.pixels[:, 0, 0, 0].long()
        assert torch.equal(batch.labels, values % 3)
        assert torch.equal(batch.indices, values)
        seen += values.tolist()
    assert sorted(seen) == list(range(12))
    assert seen != list(range(12))


def test_incomplete_last_batch_is_dropped_unless_it_is_the_only_one():
    assert [len(batch) for batch in drawn(numbered(11))] == [4, 4]
    assert [len(batch) for batch in drawn(numbered(3))] == [3]


def test_order_depends_only_on_seed_and_epoch():
    first = torch.cat(drawn(numbered(12)))
    torch.rand(5)
    assert torch.equal(torch.cat(drawn(numbered(12))), first)
    assert not torch.equal(torch.cat(drawn(numbered(12), epoch=1)), first)
    assert not torch.equal(torch.cat(drawn(numbered(12), seed=1)), first)


@pytest.mark.parametrize("augmentation", [Augmentation(8, 2), Augmentation(6, None, 0.3, erasing=0.5)])
def test_stream_from_a_later_step_gives_the_same_batches(augmentation: Augmentation):
    images = ArrayDataset(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.zeros(12, dtype=torch.long))
    whole = drawn(images, augmentation=augmentation)
    state = torch.get_rng_state()
    rest = drawn(images, 1, augmentation=augmentation)
    assert torch.equal(state, torch.get_rng_state())
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_of_all_ranks_are_the_batch(world_size: int):
    images = ArrayDataset(torch.randint(0, 256, (13, 3, 8, 8), dtype=torch.uint8), torch.arange(13))
    options: dict[str, Any] = {"augmentation": Augmentation(8, 2, erasing=0.5), "batch_size": 5}
    shares = zip(
        *(batches(images, rank=rank, world_size=world_size, **options).stream() for rank in range(world_size)),
        strict=True,
    )
    for whole, share in zip(batches(images, **options).stream(), shares, strict=True):
        for field in whole._fields:
            assert torch.equal(getattr(whole, field), torch.cat([getattr(each, field) for each in share]))
    with pytest.raises(ConfigurationError, match="cannot be divided among 6"):
        batches(images, rank=0, world_size=6, **options)


def test_workers_give_the_same_batches():
    images = ArrayDataset(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.arange(12))
    epoch = batches(images, Augmentation(6, None, 0.3))
    for alone, worked in zip(epoch.stream(1), epoch.stream(1, workers=1), strict=True):
        assert torch.equal(alone.pixels, worked.pixels)
        assert torch.equal(alone.indices, worked.indices)


def test_class_balanced_draws_classes_equally_often():
    labels = torch.tensor([0] * 3 + [2] * 57 + [4] * 540)  # 1 and 3 have no image
    images = ArrayDataset(torch.zeros(600, 1, 8, 8, dtype=torch.uint8), labels)
    epoch = batches(images, batch_size=600, class_balanced=True)
    (batch,) = epoch.stream()
    counts = batch.labels.bincount(minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert all(160 < count < 240 for count in counts[[0, 2, 4]].tolist())
    assert torch.equal(batch.labels, labels[batch.indices])
    assert batch.indices[batch.labels == 0].unique().tolist() == [0, 1, 2]


def test_evaluation_batches_cover_all_images_in_order_for_any_world_size():
    images, preprocessing = numbered(11), Preprocessing(8, 8, (0.0,), (1.0,))
    for world_size in (1, 2, 12):
        seen = [
            batch.indices
            for rank in range(world_size)
            for batch in evaluation_batches(images, preprocessing, batch_size=4, rank=rank, world_size=world_size)
        ]
        assert torch.cat(seen).tolist() == list(range(11))
