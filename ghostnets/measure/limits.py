"""What this machine can do at the most: multiply-adds a second, and bytes a second from each level of its memory."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

__all__ = ["MachineLimits", "measure_limits"]

MATRIX_SIDE = 768  # 2 MB in float32: long enough for a peak, short enough to stay in a cache
MAP_CHANNELS, MAP_SIDE = 256, 56  # of the convolution
WORKING_SETS = (256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 512 << 20)  # bytes
SECONDS = 0.3  # for each figure


@dataclass(frozen=True)
class MachineLimits:
    """Measured, not read from a data sheet.

    Attributes:
        threads: That torch used.
        macs_per_second: ``"f32"``, ``"bf16"`` and ``"int8"`` -> multiply-adds a second of the faster of two that torch
            has: the product of square matrices, and (not int8) a 3x3 convolution. Neither alone will do: they are of
            different libraries, and either may not use all that a processor has. A precision that torch cannot
            multiply here is missing.
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
        macs: dict[str, float] = {}
        for precision, number, multiply in _products():
            seconds = _best(multiply)
            if seconds is not None:
                macs[precision] = max(macs.get(precision, 0.0), number / seconds)
        speeds = []
        for size in WORKING_SETS:
            source, target = torch.zeros(2, size // 8)  # float32: two halves, both of which are touched
            copying = _best(partial(target.copy_, source))
            assert copying is not None
            speeds.append((size, size / copying))
        return MachineLimits(torch.get_num_threads(), macs, tuple(speeds))
    finally:
        torch.set_num_threads(before)


def _products() -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Precision, multiply-adds, and what does them."""
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    maps = torch.randn(1, MAP_CHANNELS, MAP_SIDE, MAP_SIDE)
    kernel = torch.randn(MAP_CHANNELS, MAP_CHANNELS, 3, 3)
    for precision, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = a.to(dtype)
        x, w = (t.to(dtype).to(memory_format=torch.channels_last) for t in (maps, kernel))
        yield precision, MATRIX_SIDE**3, partial(torch.mm, matrix, matrix)
        yield precision, w.numel() * MAP_SIDE**2, partial(F.conv2d, x, w, padding=1)
    whole = (a * 20).to(torch.int8)
    # Not public, and the only integer product that torch has.
    yield "int8", MATRIX_SIDE**3, lambda: torch._int_mm(whole, whole)


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
