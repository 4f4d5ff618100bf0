"""What this machine can do at the most: multiply-adds a second, and bytes a second from each level of its memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

__all__ = ["MachineLimits", "measure_limits"]

MATRIX_SIDE = 1536  # 9 MB in float32: long enough for a peak, short enough to stay in a cache
WORKING_SETS = (256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 512 << 20)  # bytes
SECONDS = 0.3  # for each figure


@dataclass(frozen=True)
class MachineLimits:
    """Measured, not read from a data sheet.

    Attributes:
        threads: That torch used.
        macs_per_second: ``"f32"``, ``"bf16"`` and ``"int8"`` -> multiply-adds a second of torch's product of two square
            matrices, the best of many. A precision that torch cannot multiply here is missing.
        bytes_per_second: (working set in bytes, bytes a second) of copies within it, by its size: what is read and
            what is written, both counted. Sets that fit a cache are faster than main memory.
    """

    threads: int
    macs_per_second: dict[str, float]
    bytes_per_second: tuple[tuple[int, float], ...]

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second for data of this size in all, in bytes: of the next larger set that was measured."""
        for size, speed in self.bytes_per_second:
            if working_set <= size:
                return speed
        return self.bytes_per_second[-1][1]


def measure_limits(*, threads: int | None = None) -> MachineLimits:
    """Measures for some seconds; a busy machine gives low figures.

    Args:
        threads: For torch, during the measurement; as it is set by default.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        macs = {
            precision: MATRIX_SIDE**3 / seconds
            for precision, multiply in _products().items()
            if (seconds := _best(multiply)) is not None
        }
        speeds = []
        for size in WORKING_SETS:
            source, target = torch.zeros(2, size // 8)  # float32: two halves, both of which are touched
            seconds = _best(partial(target.copy_, source))
            assert seconds is not None
            speeds.append((size, size / seconds))
        return MachineLimits(torch.get_num_threads(), macs, tuple(speeds))
    finally:
        torch.set_num_threads(before)


def _products() -> dict[str, Callable[[], object]]:
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    half, whole = a.bfloat16(), (a * 20).to(torch.int8)
    return {
        "f32": lambda: torch.mm(a, a),
        "bf16": lambda: torch.mm(half, half),
        "int8": lambda: torch._int_mm(whole, whole),  # not public, and the only integer product that torch has
    }


def _best(function: Callable[[], object]) -> float | None:
    """Seconds of the fastest of many calls; None where the function is not there or refuses."""
    try:
        function()
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    best, deadline = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < deadline:
        function()
        best = min(best, time.perf_counter() - start)
    return best
