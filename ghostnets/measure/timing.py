"""Interleaved timing: runners alternate in blocks of runs; medians, quartiles and speedups."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Runner", "Timing", "speedup", "time_interleaved"]

WARM_UP_RUNS = 3  # at the start of each block: fills caches, and lets the previous runner's threads go to sleep


@dataclass(frozen=True)
class Runner:
    """A callable to be timed.

    Attributes:
        run: Performs one run.
        setup: Called before each block of runs, untimed; sets process-wide state such as torch's number of threads.
    """

    run: Callable[[], object]
    setup: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one runner, in seconds.

    Attributes:
        blocks: Median of each block, in order. Blocks of two runners with the same index ran in the same round.
        median, low, high: Median, lower and upper quartile of all runs.
        runs: Number of timed runs.
    """

    blocks: tuple[float, ...]
    median: float
    low: float
    high: float
    runs: int


def time_interleaved(
    runners: Mapping[str, Runner], *, runs: int = 200, rounds: int = 10, on_block: Callable[[], None] = lambda: None
) -> dict[str, Timing]:
    """Time all runners alternately, one block of runs per runner and round, so that disturbances affect all of them.

    The order of the runners rotates by one every round. Each block starts with ``WARM_UP_RUNS`` untimed runs.

    Args:
        runners: Name -> runner.
        runs: Minimum number of timed runs of each runner, distributed evenly over the rounds.
        rounds: Number of blocks of each runner.
        on_block: Called after each block, for a progress bar.
    """
    names = list(runners)
    per_block = max(1, -(-runs // rounds))
    times: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runner = runners[name]
            runner.setup()
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
    """Return the speedup over the baseline, round by round: lower quartile, median, upper quartile."""
    low, median, high = np.quantile(np.divide(baseline.blocks, timing.blocks), (0.25, 0.5, 0.75))
    return float(low), float(median), float(high)
