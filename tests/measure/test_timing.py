"""Order of the runs and arithmetic of ``timing``; no test asserts a duration."""

import itertools

import pytest

from ghostnets.measure import Runner, Timing, speedup, time_interleaved
from ghostnets.measure.timing import WARM_UP_RUNS


def test_time_interleaved_rotates_blocks():
    calls: list[str] = []
    runners = {
        name: Runner(run=lambda name=name: calls.append(name), setup=lambda name=name: calls.append(name.upper()))
        for name in "abc"
    }
    blocks: list[None] = []
    timings = time_interleaved(runners, runs=10, rounds=4, on_block=lambda: blocks.append(None))
    order = [letter for letter in calls if letter.isupper()]
    assert "".join(order) == "ABCBCACABABC"
    assert len(blocks) == 12
    for name, timing in timings.items():
        assert timing.runs == 12  # 3 in each of 4 rounds: the requested 10, rounded up
        assert calls.count(name) == 4 * (3 + WARM_UP_RUNS)
        assert len(timing.blocks) == 4
        assert 0 <= timing.low <= timing.median <= timing.high
    by_block = [list(group) for is_setup, group in itertools.groupby(calls, str.isupper) if not is_setup]
    assert all(len(set(group)) == 1 for group in by_block)


def test_time_interleaved_excludes_setup(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("ghostnets.measure.timing.time.perf_counter", lambda: clock[0])

    def spend(seconds: float) -> None:
        clock[0] += seconds

    durations = itertools.cycle([1.0, 2.0, 3.0, 4.0, 5.0])
    runners = {"steady": Runner(lambda: spend(2), lambda: spend(100)), "mixed": Runner(lambda: spend(next(durations)))}
    timings = time_interleaved(runners, runs=10, rounds=2)
    assert timings["steady"] == Timing((2.0, 2.0), 2.0, 2.0, 2.0, 10)
    assert (timings["mixed"].low, timings["mixed"].median, timings["mixed"].high) == (2.0, 3.0, 4.0)


def test_speedup_divides_blocks_of_same_round():
    slow, fast = Timing((4.0, 8.0, 6.0), 6.0, 4.0, 8.0, 3), Timing((2.0, 2.0, 3.0), 2.0, 2.0, 3.0, 3)
    assert speedup(slow, fast) == (2.0, 2.0, 3.0)
    assert speedup(slow, slow) == (1.0, 1.0, 1.0)
