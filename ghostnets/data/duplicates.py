"""Images that occur more than once in a data set, with the same content."""

import numpy as np

from ghostnets.data.datasets import DatasetSplits

__all__ = ["describe_duplicates"]


def describe_duplicates(splits: DatasetSplits) -> list[str]:
    """Describe images with the same content in two classes, or in training and evaluation, with an example each.

    Args:
        splits: The splits; those whose contents are unknown are not compared.
    """
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    known = [(name, part, part.digests()) for name, part in parts.items() if part is not None]
    compared = [(name, part, digests) for name, part, digests in known if digests is not None]
    if not compared:
        return []
    digests = np.concatenate([values for *_, values in compared])
    has_boxes = compared[0][1].labels.ndim == 3  # only contents are compared
    labels = np.concatenate([np.zeros(len(part)) if has_boxes else part.labels.numpy() for _, part, _ in compared])
    if labels.ndim == 2:  # multi-label: a number for each set of classes
        labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    numbers = np.concatenate([np.full(len(values), number) for number, (*_, values) in enumerate(compared)])
    positions = np.concatenate([np.arange(len(values)) for *_, values in compared])
    order = np.lexsort((positions, numbers, digests))
    same = digests[order[1:]] == digests[order[:-1]]

    def describe(values: np.ndarray, what: str) -> list[str]:
        found = np.flatnonzero(same & (values[order[1:]] != values[order[:-1]]))
        if not len(found):
            return []
        first = found[order[found].argmin()]
        names = [compared[numbers[i]][1].name(int(positions[i])) for i in order[first : first + 2]]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return [f"the same image is in two {what}: {names[0]} and {names[1]}{more}"]

    return describe(labels, "classes" if compared[0][1].labels.ndim == 1 else "sets of labels") + describe(
        numbers, "splits"
    )
