"""Dynamic batching: images of concurrent requests are decoded and run together."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from ghostnets.errors import ImageError
from ghostnets.preprocessing import Pixels

__all__ = ["Batcher"]

Network = TypeVar("Network")
Image = TypeVar("Image")
Result = TypeVar("Result")


class _Request(NamedTuple):
    content: bytes | Pixels
    name: str
    top: int
    result: "asyncio.Future[Any]"
    since: float


class Batcher(Generic[Network, Image, Result]):
    """Collects image files into batches; each copy of a network has a thread that decodes a batch and runs it.

    A file waits until a network is free, and then until ``max_batch`` files are queued or ``max_wait`` seconds have
    passed. Files queue up while every network is busy, so under load batches are full without waiting; several free
    networks share files that arrive together.

    Must be created in a running event loop, and ended with ``close``.

    Args:
        networks: Copies of a network; each runs one batch at a time in its own thread.
        decode: Reads a file's bytes, given its name, as ``run`` takes it; called in the thread of the network.
        run: Runs a network on the images of a batch; returns a result of each, given the ``top`` of each.
        max_batch: Largest number of files in a batch.
        max_wait: Longest time in seconds that a file waits for others.
        observe: Called with the size and the run time in seconds of each batch, in the thread of the network.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        decode: Callable[[bytes | Pixels, str], Image],
        run: Callable[[Network, list[Image], list[int]], list[Result]],
        *,
        max_batch: int,
        max_wait: float,
        observe: Callable[[int, float], None],
    ) -> None:
        self.decode, self.run, self.observe = decode, run, observe
        self.max_batch, self.max_wait = max_batch, max_wait
        self.loop = asyncio.get_running_loop()
        self.changed = threading.Condition()  # guards queue, free and is_closing
        self.queue: deque[_Request] = deque()
        self.free = 0  # idle networks
        self.is_closing = False
        self.threads = [
            threading.Thread(target=self._work, args=(network,), name=f"network {number}", daemon=True)
            for number, network in enumerate(networks)
        ]
        for thread in self.threads:
            thread.start()

    async def __call__(self, content: bytes | Pixels, name: str, *, top: int) -> Result:
        """Return the result of an image file or array; raises the errors of ``decode``."""
        result: asyncio.Future[Result] = self.loop.create_future()
        with self.changed:
            self.queue.append(_Request(content, name, top, result, time.monotonic()))
            self.changed.notify()
        return await result

    def close(self) -> None:
        """End the threads once every queued file has its result."""
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def _work(self, network: Network) -> None:
        while batch := self._collect():
            # One wake-up of the event loop per batch; the thread itself never waits for the loop.
            outcomes = self._run(network, batch)
            with suppress(RuntimeError):  # the loop has been closed, so no caller waits
                self.loop.call_soon_threadsafe(_deliver, batch, outcomes)

    def _collect(self) -> list[_Request]:
        """Wait for the next batch; it is empty once the batcher is closed."""
        with self.changed:
            self.free += 1
            self.changed.wait_for(lambda: self.queue or self.is_closing)
            self.free -= 1
            batch: list[_Request] = []
            while self.queue or batch:
                share = -(-len(self.queue) // (self.free + 1))
                batch += [self.queue.popleft() for _ in range(min(share, self.max_batch - len(batch)))]
                left = batch[0].since + self.max_wait - time.monotonic()
                if len(batch) == self.max_batch or not self.changed.wait(left):
                    break
            return batch

    def _run(self, network: Network, batch: list[_Request]) -> list[Result | Exception]:
        """Outcome of each file; a file that cannot be decoded does not affect the others."""
        outcomes: dict[int, Result | Exception] = {}
        images: dict[int, Image] = {}
        for index, request in enumerate(batch):
            try:
                images[index] = self.decode(request.content, request.name)
            except ImageError as error:  # a new error: the traceback of this one keeps the decoder's image alive
                outcomes[index] = ImageError(str(error))
            except Exception as error:
                outcomes[index] = error
        if images:
            start = time.perf_counter()
            try:
                results = self.run(network, list(images.values()), [batch[index].top for index in images])
                self.observe(len(images), time.perf_counter() - start)
                outcomes |= zip(images, results, strict=True)
            except Exception as error:
                outcomes |= dict.fromkeys(images, error)
        return [outcomes[index] for index in range(len(batch))]


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Any]) -> None:
    for request, outcome in zip(batch, outcomes, strict=True):
        if request.result.done():  # the client has disconnected
            pass
        elif isinstance(outcome, Exception):
            request.result.set_exception(outcome)
        else:
            request.result.set_result(outcome)
