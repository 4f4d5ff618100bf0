"""Images that come one at a time are decoded and go through a network together."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.errors import ImageError

__all__ = ["Batcher", "Ranking"]

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
Decode = Callable[[bytes, str], Pixels]
Network = Callable[[Pixels], Scores]


class Ranking(NamedTuple):
    """The most probable classes of an image, first the most probable.

    Attributes:
        classes: Their numbers.
        probabilities: In the same order.
    """

    classes: list[int]
    probabilities: list[float]


class _Waiting(NamedTuple):
    content: bytes
    name: str
    top: int
    answer: "asyncio.Future[Ranking]"
    since: float


class Batcher:
    """Puts image files into batches; each network has a thread that decodes a batch and runs it.

    A file waits until a network is free, and then until ``max_batch`` files or ``max_wait`` seconds have come
    together. While every network is busy files gather by themselves, so under load batches are full without waiting;
    several free networks share what comes at once.

    Made inside a running event loop; ``close`` ends it.

    Args:
        networks: uint8 (N, H, W, C) -> probabilities, float32 (N, classes); one batch at a time each.
        decode: A file's bytes and its name -> uint8 (H, W, C), the same shape for all. Called in the network's thread.
        max_batch: Files.
        max_wait: Seconds.
        observe: Called with the size of each batch and the seconds that the network took, in its thread.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        decode: Decode,
        *,
        max_batch: int,
        max_wait: float,
        observe: Callable[[int, float], None],
    ) -> None:
        self.decode, self.max_batch, self.max_wait, self.observe = decode, max_batch, max_wait, observe
        self.loop = asyncio.get_running_loop()
        self.changed = threading.Condition()  # guards the four below
        self.queue: deque[_Waiting] = deque()
        self.free = 0  # networks that have nothing to do
        self.is_closing = False
        self.threads = [
            threading.Thread(target=self._work, args=(network,), name=f"network {number}", daemon=True)
            for number, network in enumerate(networks)
        ]
        for thread in self.threads:
            thread.start()

    async def __call__(self, content: bytes, name: str, *, top: int) -> Ranking:
        """The ``top`` most probable classes of an image file. Raises what ``decode`` raises."""
        answer: asyncio.Future[Ranking] = self.loop.create_future()
        with self.changed:
            self.queue.append(_Waiting(content, name, top, answer, time.monotonic()))
            self.changed.notify()
        return await answer

    def close(self) -> None:
        """Ends the threads. Call it when every file has its answer."""
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def _work(self, network: Network) -> None:
        while batch := self._collect():
            # One wake-up of the event loop for all of them; the thread itself never waits for the loop.
            self.loop.call_soon_threadsafe(_deliver, batch, self._run(network, batch))

    def _collect(self) -> list[_Waiting]:
        """The files that go together; none where there is nothing more to come."""
        with self.changed:
            self.free += 1
            self.changed.wait_for(lambda: self.queue or self.is_closing)
            self.free -= 1
            batch: list[_Waiting] = []
            while self.queue or batch:
                share = -(-len(self.queue) // (self.free + 1))
                batch += [self.queue.popleft() for _ in range(min(share, self.max_batch - len(batch)))]
                left = batch[0].since + self.max_wait - time.monotonic()
                if len(batch) == self.max_batch or not self.changed.wait(left):
                    break
            return batch

    def _run(self, network: Network, batch: list[_Waiting]) -> list[Ranking | Exception]:
        """An outcome for each file; one that cannot be decoded is no harm to the others."""
        outcomes: dict[int, Ranking | Exception] = {}
        images: dict[int, Pixels] = {}
        for index, waiting in enumerate(batch):
            try:
                images[index] = self.decode(waiting.content, waiting.name)
            except ImageError as error:  # a new one: the traceback of this one holds the decoder's image
                outcomes[index] = ImageError(str(error))
            except Exception as error:
                outcomes[index] = error
        if images:
            start = time.perf_counter()
            try:
                rows = network(np.stack(list(images.values())))
                self.observe(len(images), time.perf_counter() - start)
                outcomes |= {index: _rank(row, batch[index].top) for index, row in zip(images, rows, strict=True)}
            except Exception as error:
                outcomes |= dict.fromkeys(images, error)
        return [outcomes[index] for index in range(len(batch))]


def _deliver(batch: Sequence[_Waiting], outcomes: Sequence[Ranking | Exception]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.answer.done():  # its client has gone
            pass
        elif isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)


def _rank(probabilities: Scores, top: int) -> Ranking:
    top = min(top, len(probabilities))
    some = np.argpartition(probabilities, -top)[-top:]
    best = some[np.argsort(-probabilities[some], kind="stable")]
    return Ranking(best.tolist(), probabilities[best].tolist())
