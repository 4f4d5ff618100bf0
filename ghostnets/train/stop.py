"""Stopping between two steps instead of in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stop", "catch_stop_signals"]


@dataclass
class Stop:
    """Whether somebody asked to stop.

    Attributes:
        number: Of the signal that asked, or None.
    """

    number: int | None = None


@contextmanager
def catch_stop_signals() -> Iterator[Stop]:
    """While inside, the first SIGINT or SIGTERM is noted, for the loop to stop between steps; a second acts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return

    def note(number: int, frame: FrameType | None) -> None:
        stop.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
