"""Images with the same content in two classes or splits."""

import numpy as np
import torch

from ghostnets.data import ArrayDataset, DatasetSplits
from ghostnets.data.duplicates import describe_duplicates


def images(values: list[int], labels: list[int]) -> ArrayDataset:
    return ArrayDataset(torch.tensor(values, dtype=torch.uint8)[:, None, None, None], torch.tensor(labels))


def test_the_same_image_in_two_classes_or_splits_is_named():
    splits = DatasetSplits(images([1, 2, 3, 1], [0, 1, 1, 0]), images([4, 5], [0, 1]), images([6], [0]))
    assert describe_duplicates(splits) == []  # twice in the same class
    splits = DatasetSplits(images([1, 2, 3, 1], [0, 1, 1, 1]), images([4, 3, 2], [0, 1, 1]), images([4], [0]))
    assert describe_duplicates(splits) == [
        "the same image is in two classes: image 0 and image 3",
        "the same image is in two splits: image 1 and image 2, and 2 more",  # the first of train
    ]


def test_splits_of_unknown_content_are_not_compared(monkeypatch):
    unknown = images([1, 2], [0, 1])
    monkeypatch.setattr(unknown, "digests", lambda: None)
    assert describe_duplicates(DatasetSplits(unknown, unknown, None)) == []
    assert describe_duplicates(DatasetSplits(unknown, images([1, 1], [0, 1]), None)) == [
        "the same image is in two classes: image 0 and image 1"
    ]
    assert np.unique(images([1, 1], [0, 1]).digests()).size == 1
