"""Classes of the evaluated images and those of the checkpoint."""

import pytest

from ghostnets.cli.eval import _match_classes
from ghostnets.errors import DataError


def test_eval_identifies_classes_of_the_same_name_by_index_or_rejects():
    imagenet = ("crane", "maillot", "crane", "kite")
    assert _match_classes(imagenet, imagenet, "shards").tolist() == [0, 1, 2, 3]
    assert _match_classes(("kite", "maillot"), imagenet, "folder").tolist() == [3, 1]
    with pytest.raises(DataError, match="has the class crane, and the checkpoint has 2 classes of that name"):
        _match_classes(("crane", "kite"), imagenet, "folder")
