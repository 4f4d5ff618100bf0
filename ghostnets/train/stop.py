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
    """Record the first SIGINT, SIGTERM or SIGHUP, for the loop to stop between steps; a second one acts at once.

    SIGHUP, sent when the terminal is closed, stays ignored where ``nohup`` made the process ignore it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals reach the main thread only
        return

    def record(number: int, frame: FrameType | None) -> None:
        request.signal = number
        for each, handler in previous.items():
            signal.signal(each, handler)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        numbers.append(signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in previous:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
