import gzip
import struct
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostnets.data import FashionMnist
from ghostnets.data.fashion_mnist import CLASS_NAMES
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import Preprocessing

GRAY_28 = Preprocessing.standard(28, 1)


def test_embedded_subset_is_stratified_and_small():
    splits = FashionMnist().load(GRAY_28)
    assert splits.test is not None
    for images, per_class in [(splits.train, 1100), (splits.val, 100), (splits.test, 200)]:
        assert torch.bincount(images.labels).tolist() == [per_class] * 10
        assert images[0].shape == (1, 28, 28)
        assert images[0].dtype == torch.uint8
    folder = files("ghostnets.data").joinpath("embedded")
    assert Path(str(folder.joinpath("fashion_mnist.npz"))).stat().st_size < 8_000_000
    assert "MIT License" in folder.joinpath("LICENSE").read_text(encoding="utf-8")


def test_splits_are_disjoint():
    splits = FashionMnist().load(GRAY_28)
    assert splits.test is not None
    sets = [
        {images[i].numpy().tobytes() for i in range(len(images))} for images in (splits.train, splits.val, splits.test)
    ]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]
    assert not sets[0] & sets[2]


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_full_set_is_read_from_a_folder(tmp_path: Path):
    generator = np.random.default_rng(0)
    for prefix, count in [("train", 240), ("t10k", 20)]:
        write_idx(
            tmp_path / f"{prefix}-images-idx3-ubyte.gz", generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    splits = FashionMnist(full=True, root=tmp_path).load(GRAY_28)
    assert splits.test is not None
    assert (len(splits.train), len(splits.val), len(splits.test)) == (220, 20, 20)
    assert splits.test.labels[:3].tolist() == [0, 1, 2]
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        FashionMnist(full=True, root=tmp_path).load(GRAY_28)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="must contain the four"):
        FashionMnist(full=True, root=tmp_path).load(GRAY_28)


def test_failed_download_advises_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import torchvision.datasets

    def offline(*arguments, **options):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(DataError, match=r"could not be downloaded .*--root FOLDER"):
        FashionMnist(full=True).load(GRAY_28)


def test_other_sizes_are_rejected():
    with pytest.raises(ConfigurationError, match="28 x 28 grayscale"):
        FashionMnist().load(Preprocessing.standard(32, 3))
    assert len(CLASS_NAMES) == 10
