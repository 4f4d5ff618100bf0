"""Dynamic batching: images of concurrent requests are decoded and run together."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ghostnets.artefacts import Classifier, top_k
from ghostnets.errors import ImageError
from ghostnets.preprocessing import Pixels

__all__ = ["Batcher", "Ranking"]

Decode = Callable[[bytes | Pixels, str], Pixels]


class Ranking(NamedTuple):
    """The most probable classes of an image, most probable first.

    Attributes:
        classes: Indices of the classes.
        probabilities: Probabilities in the same order.
    """

    classes: list[int]
    probabilities: list[float]


class _Request(NamedTuple):
    content: bytes | Pixels
    name: str
    top: int
    result: "asyncio.Future[Ranking]"
    since: float


class Batcher:
    """Collects image files into batches; each classifier has a thread that decodes a batch and runs it.

    A file waits until a classifier is free, and then until ``max_batch`` files are queued or ``max_wait`` seconds have
    passed. Files queue up while every classifier is busy, so under load batches are full without waiting; several free
    classifiers share files that arrive together.

    Must be created in a running event loop, and ended with ``close``.

    Args:
        classifiers: Copies of a classifier; each runs one batch at a time in its own thread.
        decode: Reads a file's bytes, given its name, as uint8 (H, W, C), the same shape for all; called in the thread
            of the classifier.
        max_batch: Maximum number of files in a batch.
        max_wait: Longest time in seconds that a file waits for others.
        observe: Called with the size and the run time in seconds of each batch, in the thread of the classifier.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        decode: Decode,
        *,
        max_batch: int,
        max_wait: float,
        observe: Callable[[int, float], None],
    ) -> None:
        self.decode, self.max_batch, self.max_wait, self.observe = decode, max_batch, max_wait, observe
        self.loop = asyncio.get_running_loop()
        self.changed = threading.Condition()  # guards queue, free and is_closing
        self.queue: deque[_Request] = deque()
        self.free = 0  # idle classifiers
        self.is_closing = False
        self.threads = [
            threading.Thread(target=self._work, args=(classifier,), name=f"classifier {number}", daemon=True)
            for number, classifier in enumerate(classifiers)
        ]
        for thread in self.threads:
            thread.start()

    async def __call__(self, content: bytes | Pixels, name: str, *, top: int) -> Ranking:
        """Return the ``top`` most probable classes of an image file or array; raises the errors of ``decode``."""
        result: asyncio.Future[Ranking] = self.loop.create_future()
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

    def _work(self, classifier: Classifier) -> None:
        while batch := self._collect():
            # One wake-up of the event loop per batch; the thread itself never waits for the loop.
            outcomes = self._run(classifier, batch)
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

    def _run(self, classifier: Classifier, batch: list[_Request]) -> list[Ranking | Exception]:
        """Outcome of each file; a file that cannot be decoded does not affect the others."""
        outcomes: dict[int, Ranking | Exception] = {}
        images: dict[int, Pixels] = {}
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
                probabilities = classifier.run(np.stack(list(images.values()))).scores
                self.observe(len(images), time.perf_counter() - start)
                classes, values = top_k(probabilities, max(batch[index].top for index in images))
                for row, index in enumerate(images):
                    top = batch[index].top
                    outcomes[index] = Ranking(classes[row, :top].tolist(), values[row, :top].tolist())
            except Exception as error:
                outcomes |= dict.fromkeys(images, error)
        return [outcomes[index] for index in range(len(batch))]


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Ranking | Exception]) -> None:
    for request, outcome in zip(batch, outcomes, strict=True):
        if request.result.done():  # the client has disconnected
            pass
        elif isinstance(outcome, Exception):
            request.result.set_exception(outcome)
        else:
            request.result.set_result(outcome)
