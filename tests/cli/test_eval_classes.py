"""Classes of the evaluated images and those of the checkpoint."""

import pytest

from ghostnets.cli.eval_labels import match_classes
from ghostnets.errors import DataError


def test_eval_identifies_classes_of_the_same_name_by_index_or_rejects():
    imagenet = ("crane", "maillot", "crane", "kite")
    assert match_classes(imagenet, imagenet, "shards", kind="image") == [0, 1, 2, 3]
    assert match_classes(("kite", "maillot"), imagenet, "folder", kind="image") == [3, 1]
    with pytest.raises(DataError, match="has the class crane, and the checkpoint has 2 classes of that name"):
        match_classes(("crane", "kite"), imagenet, "folder", kind="image")
