"""The digests by which a run recognises its training images."""

from pathlib import Path

import numpy as np
import pytest

from ghostnets.errors import RunError
from ghostnets.train import RunFolder


def test_find_training_images_compares_contents(tmp_path: Path):
    run = RunFolder(tmp_path)
    largest = 2**64 - 1
    run.save_train_digests(np.array([7, largest, 3], dtype=np.uint64))
    assert run.train_digests.read_bytes() == np.array([3, 7, largest], dtype="<u8").tobytes()
    found = run.find_training_images(np.array([largest, 4, 3, 3], dtype=np.uint64))
    assert found.tolist() == [True, False, True, True]
    run.save_train_digests(np.array([1], dtype=np.uint64))  # a resumed run keeps the file
    assert run.find_training_images(np.array([1], dtype=np.uint64)).tolist() == [False]


def test_find_training_images_is_none_if_either_side_is_unknown(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.save_train_digests(None)
    assert not run.train_digests.exists()
    assert run.find_training_images(np.array([1], dtype=np.uint64)) is None
    run.save_train_digests(np.array([1], dtype=np.uint64))
    assert run.find_training_images(None) is None


def test_find_training_images_rejects_a_damaged_file(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.train_digests.write_bytes(b"12345")
    with pytest.raises(RunError, match="is damaged; remove it"):
        run.find_training_images(np.array([1], dtype=np.uint64))
