import json
from pathlib import Path

import pytest
import torch
from conftest import make_images

from ghostnets.data import (
    ArrayDataset,
    Augmentation,
    FileDataset,
    JoinedDataset,
    TrainingBatches,
    content_digest,
    datasets,
    evaluation_batches,
    load_files,
    open_folder,
    open_shards,
    write_shards,
)
from ghostnets.data.datasets import validation_mask
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing


def test_file_and_array_datasets_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_images(tmp_path, classes={"a": 6, "b": 6}, size=(20, 16))
    files = open_folder(tmp_path).splits["train"]
    preprocessing = Preprocessing(10, 12)
    labels = torch.tensor(files.labels)
    in_memory, _ = load_files(files.paths, labels, preprocessing)
    monkeypatch.setattr(datasets, "CACHE_BYTES", 1000)
    on_disk, _ = load_files(files.paths, labels, preprocessing)
    assert isinstance(in_memory, ArrayDataset)
    assert isinstance(on_disk, FileDataset)
    augmentation = Augmentation(8, None, 0.3)
    batches = [
        TrainingBatches(images, augmentation, batch_size=4, seed=0, epoch=0).stream() for images in (in_memory, on_disk)
    ]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.pixels, b.pixels)
    for a, b in zip(
        evaluation_batches(in_memory, preprocessing, batch_size=4),
        evaluation_batches(on_disk, preprocessing, batch_size=4),
        strict=True,
    ):
        assert torch.equal(a.pixels, b.pixels)


@pytest.mark.parametrize(("size", "expected"), [((16, 16), (16, 16)), ((16, 20), None)])
def test_common_size_does_not_depend_on_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], expected: tuple[int, int] | None
):
    """By it images are shifted instead of cropped, also those of a data set that memory does not hold."""
    make_images(tmp_path / "a", classes={"x": 4, "y": 4})
    make_images(tmp_path / "a" / "z", classes={"": 4}, size=size)
    for cache in (datasets.CACHE_BYTES, 1000):
        monkeypatch.setattr(datasets, "CACHE_BYTES", cache)
        train = open_folder(tmp_path / "a").load(Preprocessing.standard(16, 3)).train
        assert (type(train) is FileDataset) == (cache == 1000)
        assert train.common_size == expected


def test_normalize_matches_the_formula():
    preprocessing = Preprocessing(2, 2, (0.5, 0.25, 0.1), (0.2, 0.3, 0.4))
    pixels = torch.randint(0, 256, (2, 3, 2, 2), dtype=torch.uint8)
    expected = (pixels / 255 - torch.tensor([0.5, 0.25, 0.1])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    result = preprocessing.normalize(pixels)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_preprocessing_round_trip_and_limits():
    standard = Preprocessing.standard(224, 3)
    assert (standard.resize_to, standard.channels) == (256, 3)
    assert Preprocessing.standard(28, 1).resize_to == 28
    assert Preprocessing.from_dict(standard.to_dict()) == standard
    bicubic = Preprocessing(224, 256, interpolation="bicubic")
    assert Preprocessing.from_dict(bicubic.to_dict()) == bicubic
    with pytest.raises(ConfigurationError, match="bilinear or bicubic"):
        Preprocessing(224, 256, interpolation="nearest")
    with pytest.raises(ConfigurationError, match="cannot be used \\(KeyError: 'resize_to'\\)"):
        Preprocessing.from_dict({"image_size": 3})
    with pytest.raises(ConfigurationError, match="resize_to not below"):
        Preprocessing(224, 200)
    with pytest.raises(ConfigurationError, match="1 or 3 finite values"):
        Preprocessing(8, 8, (0.5, 0.5), (1.0, 1.0))


def test_names_and_digests_of_every_kind_of_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_images(tmp_path / "photos", classes={"a": 3, "b": 3})
    folder = open_folder(tmp_path / "photos")
    files, preprocessing = folder.splits["train"], Preprocessing(10, 12)
    labels, expected = torch.tensor(files.labels), [content_digest(path.read_bytes()) for path in files.paths]
    in_memory, _ = load_files(files.paths, labels, preprocessing)
    monkeypatch.setattr(datasets, "CACHE_BYTES", 1000)
    on_disk, _ = load_files(files.paths, labels, preprocessing)
    shards, _ = write_shards(folder, tmp_path / "shards", images_per_shard=2)
    sharded, _ = shards.load_split("train", preprocessing)
    for dataset in (in_memory, on_disk, JoinedDataset([in_memory], labels)):
        assert dataset.digests().tolist() == expected
        assert [dataset.name(i) for i in range(len(dataset))] == list(map(str, files.paths))
    assert sorted(sharded.digests().tolist()) == sorted(expected)
    assert sharded.name(3).endswith("train-000001.tar:000000003.png")
    pixels = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    without_files = ArrayDataset(pixels, labels[:2])
    assert without_files.name(1) == "image 1"
    joined = JoinedDataset([without_files, on_disk], torch.zeros(6, dtype=torch.int64))
    assert joined.digests().tolist() == [content_digest(pixels[i].numpy().tobytes()) for i in (0, 1)] + expected
    assert joined.name(2) == str(files.paths[0])
    assert torch.equal(joined[2], on_disk[0])


def test_digests_are_unknown_for_shards_without_them(tmp_path: Path):
    make_images(tmp_path / "photos", classes={"a": 3, "b": 3})
    write_shards(open_folder(tmp_path / "photos"), tmp_path / "shards")
    index = tmp_path / "shards" / "index.json"
    content = json.loads(index.read_text())
    entry = content["parts"]["train"][0]
    entry["digests"] = entry["digests"][:-2]
    index.write_text(json.dumps(content))
    with pytest.raises(DataError, match="one digest per label"):
        open_shards(tmp_path / "shards")
    del entry["digests"]
    index.write_text(json.dumps(content))
    assert open_shards(tmp_path / "shards").load_split("train", Preprocessing(10, 12))[0].digests() is None


def test_multi_label_validation_has_its_share_of_every_class():
    labels = (torch.rand(200, 7, generator=torch.Generator().manual_seed(3)) < torch.tensor(
        [0.5, 0.3, 0.1, 0.05, 0.03, 0.3, 0.02]
    )).float()  # fmt: skip
    labels[:, 6] = 0
    labels[17, 6] = 1  # a class of one image, which is trained on
    mask = validation_mask(labels, 0.25, seed=1)
    in_val, in_all = labels[mask].sum(0), labels.sum(0)
    assert in_val[6] == 0
    assert ((in_val[:6] / in_all[:6] - 0.25).abs() < 0.13).all()
    assert (in_all - in_val >= 1).all()
    assert abs(mask.float().mean() - 0.25) < 0.06
    assert mask.equal(validation_mask(labels, 0.25, seed=1))
    assert not mask.equal(validation_mask(labels, 0.25, seed=2))
