"""Confusion matrices of any number of classes: which classes to show, and in which order."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np

__all__ = ["MAX_MATRIX_CLASSES", "count_matrix", "select_classes"]

MAX_MATRIX_CLASSES = 30  # more rows would be illegible


def select_classes(cells: Sequence[tuple[int, int, int]], num_classes: int) -> list[int]:
    """Choose and order the classes of a confusion matrix, so that confused classes are next to each other.

    Args:
        cells: True class, predicted class and number of images; cells that are zero may be left out.
        num_classes: Number of classes.

    Returns:
        Indices of all classes, or of the ``MAX_MATRIX_CLASSES`` that are confused most often.
    """
    mistakes: Counter[tuple[int, int]] = Counter()  # unordered pair of classes -> mistakes
    for true, predicted, count in cells:
        if true != predicted:
            mistakes[min(true, predicted), max(true, predicted)] += count
    confused = dict.fromkeys(index for pair, _ in mistakes.most_common() for index in pair)
    left = dict.fromkeys(islice([*confused, *(i for i in range(num_classes) if i not in confused)], MAX_MATRIX_CLASSES))
    order: list[int] = []
    while left:
        last = order[-1] if order else -1
        following = max(left, key=lambda i: mistakes[min(i, last), max(i, last)])  # the first of equals
        order.append(following)
        del left[following]
    return order


def count_matrix(cells: Sequence[tuple[int, int, int]], shown: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Count the images of each pair of true and predicted class, for the given classes.

    Args:
        cells: True class, predicted class and number of images, as for ``select_classes``.
        shown: Indices of the classes, in the order of the rows and columns.

    Returns:
        Number of images, int64 (len(shown), len(shown)), and the share of all images of the true class, float64.
    """
    position = {index: place for place, index in enumerate(shown)}
    counts, totals = np.zeros((len(shown), len(shown)), dtype=np.int64), np.zeros(len(shown), dtype=np.int64)
    for true, predicted, count in cells:
        if true in position:
            totals[position[true]] += count
            if predicted in position:
                counts[position[true], position[predicted]] = count
    return counts, counts / np.maximum(1, totals)[:, None]
