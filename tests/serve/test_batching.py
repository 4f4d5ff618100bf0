"""Batches: how images come together, how long they wait, whose answer is whose."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ghostnets.artefacts import Outputs
from ghostnets.errors import ImageError
from ghostnets.serve.batching import Batcher


def decode(content: bytes, name: str) -> np.ndarray:
    """A "file" is the brightness of its image."""
    if not content:
        raise ImageError(f"{name} is empty.")
    return np.full((2, 2, 1), content[0], np.uint8)


def one_hot(images: np.ndarray) -> np.ndarray:
    """The class of an image is its brightness."""
    return np.eye(256, dtype=np.float32)[images[:, 0, 0, 0]]


def as_classifier(network) -> SimpleNamespace:
    return SimpleNamespace(run=lambda images: Outputs(network(images), None))


def run(network, count: int, *, copies: int = 1, damaged: int | None = None, **options: float) -> tuple[list, list]:
    """Rankings of ``count`` files given at once, of which one may be damaged, and the sizes of the batches."""
    files = [b"" if number == damaged else bytes([number]) for number in range(count)]
    sizes: list[int] = []

    async def ask() -> list:
        batcher = Batcher(
            [as_classifier(network)] * copies, decode, observe=lambda size, seconds: sizes.append(size), **options
        )
        asked = (batcher(file, str(number), top=2) for number, file in enumerate(files))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.to_thread(batcher.close)
        return answers

    return asyncio.run(ask()), sizes


@pytest.mark.parametrize("copies", [1, 3])
def test_each_image_gets_its_own_answer(copies: int):
    answers, sizes = run(one_hot, 100, copies=copies, max_batch=7, max_wait=0.001)
    assert [answer.classes[0] for answer in answers] == list(range(100))
    assert all(answer.probabilities == [1, 0] for answer in answers)
    assert sum(sizes) == 100
    assert max(sizes) == 7


def test_an_image_alone_waits_for_others_no_longer_than_it_may():
    start = time.perf_counter()
    answers, sizes = run(one_hot, 1, max_batch=100, max_wait=0.05)
    assert 0.05 <= time.perf_counter() - start < 5
    assert sizes == [1]
    assert len(answers[0].classes) == 2


def test_a_full_batch_does_not_wait():
    start = time.perf_counter()
    _, sizes = run(one_hot, 8, max_batch=4, max_wait=60)
    assert time.perf_counter() - start < 30
    assert sizes == [4, 4]


def test_an_error_reaches_those_in_the_batch_alone():
    def network(images: np.ndarray) -> np.ndarray:
        if images.max() >= 4:
            raise ValueError("no")
        return one_hot(images)

    answers, _ = run(network, 8, max_batch=4, max_wait=0.01)
    assert [answer.classes[0] for answer in answers[:4]] == [0, 1, 2, 3]
    assert all(isinstance(answer, ValueError) for answer in answers[4:])


def test_a_damaged_file_is_no_harm_to_the_others():
    answers, sizes = run(one_hot, 8, damaged=3, max_batch=8, max_wait=1)
    assert isinstance(answers[3], ImageError)
    assert str(answers[3]) == "3 is empty."
    assert [answer.classes[0] for i, answer in enumerate(answers) if i != 3] == [0, 1, 2, 4, 5, 6, 7]
    assert sizes == [7]


def test_a_batch_of_damaged_files_does_not_reach_the_network():
    answers, sizes = run(one_hot, 1, damaged=0, max_batch=4, max_wait=0)
    assert isinstance(answers[0], ImageError)
    assert sizes == []


def test_free_networks_share_what_comes_at_once():
    both_have_some = threading.Barrier(2, timeout=60)
    met: set[str] = set()

    def network(images: np.ndarray) -> np.ndarray:
        if (thread := threading.current_thread().name) not in met:
            met.add(thread)
            both_have_some.wait()
        return one_hot(images)

    async def ask() -> list:
        batcher = Batcher(
            [as_classifier(network)] * 2, decode, max_batch=8, max_wait=0, observe=lambda size, seconds: None
        )
        while batcher.free < 2:
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*(batcher(bytes([i]), str(i), top=1) for i in range(8)))
        await asyncio.to_thread(batcher.close)
        return answers

    assert [answer.classes[0] for answer in asyncio.run(ask())] == list(range(8))
    assert len(met) == 2
