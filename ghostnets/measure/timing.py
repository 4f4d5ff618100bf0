"""How long something takes beside something else: blocks of runs that alternate, medians and quartiles."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Runner", "Timing", "speedup", "time_interleaved"]

WARM_UP_RUNS = 3  # after each change, for caches and for threads of the one before to fall asleep


@dataclass(frozen=True)
class Runner:
    """Something to be timed.

    Attributes:
        run: One run.
        enter: Called before each block of runs, untimed; sets what the process has only one of (threads of torch).
    """

    run: Callable[[], object]
    enter: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one runner, in seconds.

    Attributes:
        blocks: Median of each block, in the order of the rounds; those of two runners with one index are neighbours.
        median, low, high: Median and quartiles of all runs.
        runs: How many were timed.
    """

    blocks: tuple[float, ...]
    median: float
    low: float
    high: float
    runs: int


def time_interleaved(
    runners: Mapping[str, Runner], *, runs: int = 200, rounds: int = 10, on_block: Callable[[], None] = lambda: None
) -> dict[str, Timing]:
    """Times all runners in one run: round by round, one block of each, so that a disturbance meets all of them.

    The order turns by one with each round. The first runs of a block are not timed.

    Args:
        runners: By name.
        runs: Timed runs of each at the least, spread evenly over the rounds.
        rounds: Blocks of each.
        on_block: Called after each block, for a progress bar.
    """
    names = list(runners)
    per_block = max(1, -(-runs // rounds))
    times: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runner = runners[name]
            runner.enter()
            for _ in range(WARM_UP_RUNS):
                runner.run()
            block = np.empty(per_block)
            for index in range(per_block):
                start = time.perf_counter()
                runner.run()
                block[index] = time.perf_counter() - start
            times[name].append(block)
            on_block()
    result = {}
    for name, blocks in times.items():
        low, median, high = np.quantile(np.concatenate(blocks), (0.25, 0.5, 0.75))
        medians = tuple(float(np.median(block)) for block in blocks)
        result[name] = Timing(medians, float(median), float(low), float(high), per_block * rounds)
    return result


def speedup(baseline: Timing, timing: Timing) -> tuple[float, float, float]:
    """How many times as fast as the baseline: lower quartile, median, upper quartile over the rounds."""
    low, median, high = np.quantile(np.divide(baseline.blocks, timing.blocks), (0.25, 0.5, 0.75))
    return float(low), float(median), float(high)
