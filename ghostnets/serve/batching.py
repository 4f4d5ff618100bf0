"""Images that come one at a time go through a network together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Batcher"]

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
Network = Callable[[Pixels], Scores]


class Batcher:
    """Puts images into batches and runs them, each network in a thread of its own.

    An image waits until a network is free, and then until ``max_batch`` images or ``max_wait`` seconds have come
    together. While every network is busy images gather by themselves, so under load batches are full without waiting.

    Made inside a running event loop; ``close`` ends it.

    Args:
        networks: uint8 (N, H, W, C) -> float32 (N, classes); one batch at a time each.
        max_batch: Images.
        max_wait: Seconds.
        observe: Called with the size of each batch and the seconds it took.
    """

    def __init__(
        self, networks: Sequence[Network], *, max_batch: int, max_wait: float, observe: Callable[[int, float], None]
    ) -> None:
        self.max_batch, self.max_wait, self.observe = max_batch, max_wait, observe
        self.queue: asyncio.Queue[tuple[Pixels, asyncio.Future[Scores], float]] = asyncio.Queue()
        self.threads = ThreadPoolExecutor(len(networks), thread_name_prefix="network")
        self.workers = [asyncio.create_task(self._work(network)) for network in networks]

    async def __call__(self, image: Pixels) -> Scores:
        """uint8 (H, W, C) -> float32 (classes,); all images have the same shape."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Scores] = loop.create_future()
        self.queue.put_nowait((image, answer, loop.time()))
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
                rows = await loop.run_in_executor(self.threads, _run, network, [image for image, _, _ in batch])
            except Exception as error:
                for _, answer, _ in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            self.observe(len(batch), time.perf_counter() - start)
            for (_, answer, _), row in zip(batch, rows, strict=True):
                if not answer.done():  # its client may have gone
                    answer.set_result(row)

    async def _collect(self) -> list[tuple[Pixels, "asyncio.Future[Scores]", float]]:
        batch = [await self.queue.get()]
        try:
            async with asyncio.timeout_at(batch[0][2] + self.max_wait):
                while len(batch) < self.max_batch:
                    batch.append(self.queue.get_nowait() if not self.queue.empty() else await self.queue.get())
        except TimeoutError:
            pass
        return batch


def _run(network: Network, images: list[Any]) -> Scores:
    return network(np.stack(images))
