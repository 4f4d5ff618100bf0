from pathlib import Path

import pytest
import torch
from conftest import make_images

from ghostnets.data import (
    ArrayImages,
    CropAndFlip,
    FileImages,
    Preprocessing,
    ShiftAndFlip,
    evaluation_batches,
    find_images,
    load_files,
    sets,
    training_batches,
)
from ghostnets.errors import CheckpointError, ConfigurationError, DataError

UNCHANGED = ShiftAndFlip(0, False)


def numbered(count: int, side: int = 8) -> ArrayImages:
    """Image i has the value i everywhere."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, side, side).contiguous()
    return ArrayImages(pixels, torch.arange(count) % 3)


def drawn(images, augmentation=UNCHANGED, **arguments) -> list[torch.Tensor]:
    options = {"batch_size": 4, "seed": 0, "epoch": 0, **arguments}
    return [pixels for pixels, _ in training_batches(images, augmentation, **options)]


def test_an_epoch_shows_each_image_once_with_its_label():
    seen = []
    for pixels, labels in training_batches(numbered(12), ShiftAndFlip(0, False), batch_size=4, seed=0, epoch=0):
        values = pixels[:, 0, 0, 0].long()
        assert torch.equal(labels, values % 3)
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


@pytest.mark.parametrize("augmentation", [ShiftAndFlip(2, True), CropAndFlip(6, 0.3, True)])
def test_starting_in_the_middle_continues_exactly(augmentation):
    torch.manual_seed(1)
    images = ArrayImages(torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8), torch.zeros(12, dtype=torch.long))
    whole = drawn(images, augmentation)
    state = torch.get_rng_state()
    rest = drawn(images, augmentation, start=1)
    assert torch.equal(state, torch.get_rng_state())  # nothing is drawn from the stream that dropout uses
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


def test_files_and_memory_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_images(tmp_path, classes={"a": 6, "b": 6}, size=(20, 16))
    files = find_images(tmp_path).parts["train"]
    preprocessing = Preprocessing(10, 12)
    labels = torch.tensor(files.labels)
    in_memory, _ = load_files(files.paths, labels, preprocessing)
    monkeypatch.setattr(sets, "CACHE_BYTES", 1000)
    on_disk, _ = load_files(files.paths, labels, preprocessing)
    assert isinstance(in_memory, ArrayImages)
    assert isinstance(on_disk, FileImages)
    augmentation = CropAndFlip(8, 0.3, True)
    for a, b in zip(drawn(in_memory, augmentation), drawn(on_disk, augmentation), strict=True):
        assert torch.equal(a, b)
    for (a, _), (b, _) in zip(
        evaluation_batches(in_memory, preprocessing, batch_size=4),
        evaluation_batches(on_disk, preprocessing, batch_size=4),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_shift_moves_and_flip_mirrors():
    images = torch.zeros(400, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 1] = 255
    moved = ShiftAndFlip(1, False)(images, seed=0)
    places = {tuple(p) for p in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in (1, 2, 3) for x in (0, 1, 2)}
    assert (moved.sum((1, 2, 3)) == 255).all()
    flipped = ShiftAndFlip(0, True)(images, seed=0)
    share = (flipped[:, 0, 2, 3] == 255).float().mean().item()
    assert 0.4 < share < 0.6


def test_images_of_different_sizes_need_resizing():
    images = ArrayImages(
        [torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 5, 4, dtype=torch.uint8)], torch.zeros(2).long()
    )
    with pytest.raises(DataError, match="different sizes"):
        drawn(images)


def test_normalisation_is_the_usual_one():
    preprocessing = Preprocessing(2, 2, (0.5, 0.25, 0.1), (0.2, 0.3, 0.4))
    pixels = torch.randint(0, 256, (2, 3, 2, 2), dtype=torch.uint8)
    expected = (pixels / 255 - torch.tensor([0.5, 0.25, 0.1])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    result = preprocessing.normalize(pixels)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_preprocessing_round_trip_and_refusals():
    standard = Preprocessing.standard(224, 3)
    assert (standard.resize_to, standard.channels) == (256, 3)
    assert Preprocessing.standard(28, 1).resize_to == 28
    assert Preprocessing.from_dict(standard.to_dict()) == standard
    bicubic = Preprocessing(224, 256, interpolation="bicubic")
    assert Preprocessing.from_dict(bicubic.to_dict()) == bicubic
    with pytest.raises(ConfigurationError, match="bilinear or bicubic"):
        Preprocessing(224, 256, interpolation="nearest")
    with pytest.raises(CheckpointError, match="no usable preprocessing"):
        Preprocessing.from_dict({"image_size": 3})
    with pytest.raises(ConfigurationError, match="resize_to not below"):
        Preprocessing(224, 200)
    with pytest.raises(ConfigurationError, match="1 or 3 values"):
        Preprocessing(8, 8, (0.5, 0.5), (1.0, 1.0))
