"""From scores to ranked classes: probabilities and top-k, the same for every runtime and interface."""

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "probabilities_of", "sigmoid", "softmax", "top_k"]

Array = npt.NDArray[np.float32]


def softmax(logits: Array, *, temperature: float | None = None) -> Array:
    """Return the softmax of logits (N, classes), divided by a temperature if given: each row sums to 1."""
    if temperature is not None:
        logits = logits / np.float32(temperature)
    powers = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    result: Array = powers / powers.sum(1, keepdims=True)
    return result


def sigmoid(logits: Array, *, temperature: float | None = None) -> Array:
    """Return the sigmoid of logits (N, classes), divided by a temperature if given: independent probabilities."""
    if temperature is not None:
        logits = logits / np.float32(temperature)
    powers = np.exp(-np.abs(logits))  # at most 1
    result: Array = np.where(logits >= 0, 1, powers) / (1 + powers)
    return result


def probabilities_of(logits: Array, *, multi_label: bool, temperature: float | None) -> Array:
    """Return the probabilities (N, classes) of logits: sigmoid for multi-label networks, otherwise softmax."""
    return (sigmoid if multi_label else softmax)(logits, temperature=temperature)


def top_k(scores: Array, k: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Indices and values of the ``k`` highest scores of each row, highest first; ties keep the order of the classes.

    Args:
        scores: (N, classes).
        k: Number of classes; all of them where there are fewer.

    Returns:
        Int64 (N, k) and float32 (N, k).
    """
    indices = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(scores, indices, 1)
