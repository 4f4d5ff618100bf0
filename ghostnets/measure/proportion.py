"""Confidence intervals of proportions, such as accuracies."""

import math

__all__ = ["format_accuracy", "format_interval", "wilson_interval"]

Z_95 = 1.959964  # quantile of the normal distribution for 95 %


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Wilson score interval of a proportion at 95 % (Wilson, J. Am. Stat. Assoc. 22, 1927), in [0, 1].

    Unlike the normal approximation it holds for few trials and for proportions of 0 and 1.

    Args:
        successes: Number of successes.
        total: Number of independent trials, at least 1.

    >>> [round(bound, 3) for bound in wilson_interval(10, 20)]
    [0.299, 0.701]
    """
    share, square = successes / total, Z_95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z_95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def format_interval(successes: int, total: int) -> str:
    """Text of the Wilson interval, with one decimal if it is narrower than five percentage points.

    >>> format_interval(10, 20)
    '30 to 70%'
    """
    low, high = wilson_interval(successes, total)
    digits = 0 if high - low >= 0.05 else 1 if high - low >= 0.005 else 2
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}%"


def format_accuracy(successes: int, total: int, digits: int = 1) -> str:
    """Text of a proportion with its Wilson interval; a dash without trials.

    >>> format_accuracy(10, 20), format_accuracy(0, 0)
    ('50.0% (30 to 70%)', '–')
    """
    return f"{successes / total:.{digits}%} ({format_interval(successes, total)})" if total else "–"
