"""Measured peak performance of this machine: multiply-adds per second, and bandwidth by size of the working set."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

__all__ = ["MachineLimits", "measure_limits"]

MATRIX_SIDE = 768  # 2 MB in float32: large enough to reach the peak, small enough to stay in cache
CONV_CHANNELS, CONV_SIDE = 256, 56
WORKING_SETS = (256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 512 << 20)  # bytes
SECONDS = 0.3  # per measured value


@dataclass(frozen=True)
class MachineLimits:
    """Roofline of this machine, measured rather than taken from a data sheet.

    Attributes:
        threads: Number of torch threads during the measurement.
        macs_per_second: Precision (``"f32"``, ``"bf16"``, ``"int8"``) -> peak multiply-adds per second: the faster of a
            square matrix product and, except for int8, a 3x3 convolution. The two use different libraries, and either
            may miss the peak. Precisions that torch cannot multiply on this machine are absent.
        bytes_per_second: (working set in bytes, bytes per second) of a copy within the working set, reads and writes
            both counted, in ascending order of size. Working sets that fit a cache are faster than main memory.
    """

    threads: int
    macs_per_second: dict[str, float]
    bytes_per_second: tuple[tuple[int, float], ...]

    def bandwidth(self, working_set: int) -> float:
        """Return bytes per second for ``working_set`` bytes of data: the value of the next larger measured size."""
        for size, bandwidth in self.bytes_per_second:
            if working_set <= size:
                return bandwidth
        return self.bytes_per_second[-1][1]


def measure_limits(*, threads: int | None = None) -> MachineLimits:
    """Measure the machine's limits, which takes some seconds; other load lowers the values.

    Args:
        threads: Number of torch threads during the measurement; the current setting by default.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        macs: dict[str, float] = {}
        for precision, num_macs, multiply in _multiplications():
            seconds = _fastest_call(multiply)
            if seconds is not None:
                macs[precision] = max(macs.get(precision, 0.0), num_macs / seconds)
        bandwidths = []
        for size in WORKING_SETS:
            source, target = torch.zeros(2, size // 8)  # float32: each takes half of the working set
            seconds = _fastest_call(partial(target.copy_, source))
            assert seconds is not None
            bandwidths.append((size, size / seconds))
        return MachineLimits(torch.get_num_threads(), macs, tuple(bandwidths))
    finally:
        torch.set_num_threads(before)


def _multiplications() -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Yield (precision, number of multiply-adds, callable that performs them)."""
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    maps = torch.randn(1, CONV_CHANNELS, CONV_SIDE, CONV_SIDE)
    kernel = torch.randn(CONV_CHANNELS, CONV_CHANNELS, 3, 3)
    for precision, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = a.to(dtype)
        x, w = (t.to(dtype).to(memory_format=torch.channels_last) for t in (maps, kernel))
        yield precision, MATRIX_SIDE**3, partial(torch.mm, matrix, matrix)
        yield precision, w.numel() * CONV_SIDE**2, partial(F.conv2d, x, w, padding=1)
    integers = (a * 20).to(torch.int8)
    # Not public, but torch has no other integer matrix product.
    yield "int8", MATRIX_SIDE**3, lambda: torch._int_mm(integers, integers)


def _fastest_call(function: Callable[[], object]) -> float | None:
    """Return the duration of the fastest call in seconds, or None if torch does not support the operation here."""
    try:
        function()
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    best, deadline = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < deadline:
        function()
        best = min(best, time.perf_counter() - start)
    return best
