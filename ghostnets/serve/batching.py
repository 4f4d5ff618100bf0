"""Images that come one at a time go through a network together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Batcher", "Ranking"]

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
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
    image: Pixels
    top: int
    answer: "asyncio.Future[Ranking]"
    since: float


class Batcher:
    """Puts images into batches and runs them, each network in a thread of its own.

    An image waits until a network is free, and then until ``max_batch`` images or ``max_wait`` seconds have come
    together. While every network is busy images gather by themselves, so under load batches are full without waiting.

    Made inside a running event loop; ``close`` ends it.

    Args:
        networks: uint8 (N, H, W, C) -> probabilities, float32 (N, classes); one batch at a time each.
        max_batch: Images.
        max_wait: Seconds.
        observe: Called with the size of each batch and the seconds it took.
    """

    def __init__(
        self, networks: Sequence[Network], *, max_batch: int, max_wait: float, observe: Callable[[int, float], None]
    ) -> None:
        self.max_batch, self.max_wait, self.observe = max_batch, max_wait, observe
        self.queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self.threads = ThreadPoolExecutor(len(networks), thread_name_prefix="network")
        self.workers = [asyncio.create_task(self._work(network)) for network in networks]

    async def __call__(self, image: Pixels, *, top: int) -> Ranking:
        """The ``top`` most probable classes of uint8 (H, W, C); all images have the same shape."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Ranking] = loop.create_future()
        self.queue.put_nowait(_Waiting(image, top, answer, loop.time()))
        return await answer

    async def close(self) -> None:
        """Call it when every image has its answer."""
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)
        self.threads.shutdown()

    async def _work(self, network: Network) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            start = time.perf_counter()
            try:
                rankings = await loop.run_in_executor(self.threads, _run, network, batch)
            except Exception as error:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            self.observe(len(batch), time.perf_counter() - start)
            for waiting, ranking in zip(batch, rankings, strict=True):
                if not waiting.answer.done():  # its client may have gone
                    waiting.answer.set_result(ranking)

    async def _collect(self) -> list[_Waiting]:
        batch = [await self.queue.get()]
        try:
            async with asyncio.timeout_at(batch[0].since + self.max_wait):
                while len(batch) < self.max_batch:
                    batch.append(self.queue.get_nowait() if not self.queue.empty() else await self.queue.get())
        except TimeoutError:
            pass
        return batch


def _run(network: Network, batch: list[_Waiting]) -> list[Ranking]:
    rows = network(np.stack([waiting.image for waiting in batch]))
    return [_rank(row, waiting.top) for row, waiting in zip(rows, batch, strict=True)]


def _rank(probabilities: Scores, top: int) -> Ranking:
    top = min(top, len(probabilities))
    some = np.argpartition(probabilities, -top)[-top:]
    best = some[np.argsort(-probabilities[some], kind="stable")]
    return Ranking(best.tolist(), probabilities[best].tolist())
