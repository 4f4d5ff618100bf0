"""Batcher: batch formation, waiting times, and assignment of results to requests."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ghostnets.artefacts import Outputs
from ghostnets.errors import ImageError
from ghostnets.serve.answers import rank
from ghostnets.serve.batching import Batcher


def decode(content: bytes, name: str) -> np.ndarray:
    """Decode a "file" that consists of the brightness of its image."""
    if not content:
        raise ImageError(f"{name} is empty.")
    return np.full((2, 2, 1), content[0], np.uint8)


def one_hot(images: np.ndarray) -> np.ndarray:
    """Return the brightness of each image as its class."""
    return np.eye(256, dtype=np.float32)[images[:, 0, 0, 0]]


def as_classifier(network) -> SimpleNamespace:
    return SimpleNamespace(run=lambda images: Outputs(network(images), None))


def run(network, count: int, *, copies: int = 1, damaged: int | None = None, **options: float) -> tuple[list, list]:
    """Submit ``count`` files at once, one of them damaged on request; return their rankings and the batch sizes."""
    files = [b"" if number == damaged else bytes([number]) for number in range(count)]
    sizes: list[int] = []

    async def submit() -> list:
        batcher = Batcher(
            [as_classifier(network)] * copies, decode, rank, observe=lambda size, seconds: sizes.append(size), **options
        )
        pending = (batcher(file, str(number), top=2) for number, file in enumerate(files))
        rankings = await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.to_thread(batcher.close)
        return rankings

    return asyncio.run(submit()), sizes


@pytest.mark.parametrize("copies", [1, 3])
def test_each_image_gets_its_own_result(copies: int):
    rankings, sizes = run(one_hot, 100, copies=copies, max_batch=7, max_wait=0.001)
    assert [ranking.classes[0] for ranking in rankings] == list(range(100))
    assert all(ranking.probabilities == [1, 0] for ranking in rankings)
    assert sum(sizes) == 100
    assert max(sizes) == 7


def test_single_image_waits_at_most_max_wait():
    start = time.perf_counter()
    rankings, sizes = run(one_hot, 1, max_batch=100, max_wait=0.05)
    assert 0.05 <= time.perf_counter() - start < 5
    assert sizes == [1]
    assert len(rankings[0].classes) == 2


def test_full_batch_does_not_wait():
    start = time.perf_counter()
    _, sizes = run(one_hot, 8, max_batch=4, max_wait=60)
    assert time.perf_counter() - start < 30
    assert sizes == [4, 4]


def test_network_error_affects_its_batch_only():
    def network(images: np.ndarray) -> np.ndarray:
        if images.max() >= 4:
            raise ValueError("failed")
        return one_hot(images)

    rankings, _ = run(network, 8, max_batch=4, max_wait=0.01)
    assert [ranking.classes[0] for ranking in rankings[:4]] == [0, 1, 2, 3]
    assert all(isinstance(ranking, ValueError) for ranking in rankings[4:])


def test_damaged_file_does_not_affect_others():
    rankings, sizes = run(one_hot, 8, damaged=3, max_batch=8, max_wait=1)
    assert isinstance(rankings[3], ImageError)
    assert str(rankings[3]) == "3 is empty."
    assert [ranking.classes[0] for i, ranking in enumerate(rankings) if i != 3] == [0, 1, 2, 4, 5, 6, 7]
    assert sizes == [7]


def test_batch_of_damaged_files_does_not_run_network():
    rankings, sizes = run(one_hot, 1, damaged=0, max_batch=4, max_wait=0)
    assert isinstance(rankings[0], ImageError)
    assert sizes == []


def test_idle_networks_share_simultaneous_images():
    both_running = threading.Barrier(2, timeout=60)
    met: set[str] = set()

    def network(images: np.ndarray) -> np.ndarray:
        if (thread := threading.current_thread().name) not in met:
            met.add(thread)
            both_running.wait()
        return one_hot(images)

    async def submit() -> list:
        batcher = Batcher(
            [as_classifier(network)] * 2, decode, rank, max_batch=8, max_wait=0, observe=lambda size, seconds: None
        )
        while batcher.free < 2:
            await asyncio.sleep(0.001)
        rankings = await asyncio.gather(*(batcher(bytes([i]), str(i), top=1) for i in range(8)))
        await asyncio.to_thread(batcher.close)
        return rankings

    assert [ranking.classes[0] for ranking in asyncio.run(submit())] == list(range(8))
    assert len(met) == 2
