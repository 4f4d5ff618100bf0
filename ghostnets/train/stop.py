"""Graceful stop: signals are handled between two steps, not in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["StopRequest", "catch_stop_signals"]


@dataclass
class StopRequest:
    """Whether the process was asked to stop.

    Attributes:
        signal: Number of the signal received, or None.
    """

    signal: int | None = None


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Record the first SIGINT or SIGTERM, for the loop to stop between steps; a second one acts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread only
        return

    def record(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for each, handler in previous.items():
            signal.signal(each, handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
