"""Batches: how images come together, how long they wait, whose answer is whose."""

import asyncio
import time

import numpy as np
import pytest

from ghostnets.serve.batching import Batcher


def image(number: int) -> np.ndarray:
    return np.full((2, 2, 1), number, np.uint8)


def one_hot(images: np.ndarray) -> np.ndarray:
    """The class of an image is its brightness."""
    return np.eye(256, dtype=np.float32)[images[:, 0, 0, 0]]


def run(network, count: int, *, copies: int = 1, **options: float) -> tuple[list, list[int]]:
    """Rankings of ``count`` images given at once, and the sizes of the batches."""
    sizes: list[int] = []

    async def ask() -> list:
        batcher = Batcher([network] * copies, observe=lambda size, seconds: sizes.append(size), **options)
        answers = await asyncio.gather(*(batcher(image(i), top=2) for i in range(count)), return_exceptions=True)
        await batcher.close()
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
