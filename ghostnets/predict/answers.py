"""Images in, rows out: batches are read and run side by side, and come out in order."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Artefact
from ghostnets.errors import ImageError
from ghostnets.predict.inputs import Input, read_input
from ghostnets.preprocessing import Pixels

__all__ = ["BATCH_SIZE", "Prediction", "batches", "predict_batch", "predict_images"]

BATCH_SIZE = 16
BATCHES_AHEAD = 3  # for each worker: what is being read, run or waiting for its turn to come out


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        path: The file, or "" for an image given in memory.
        classes: Names, most probable first.
        probabilities: In the same order; those of all classes of the network add up to 1.
        error: Why there is no answer (the two lists are then empty), or None.
        features: Float32 (F,), what the last linear layer takes, where they were asked for.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)


def predict_images(
    artefact: Artefact, inputs: Iterable[Input], *, top: int, features: bool = False, workers: int | None = None
) -> Iterator[list[Prediction]]:
    """Answers in the order of ``inputs``, a batch at a time.

    Each worker is a thread that reads a batch, runs it in a network of its own, with one thread, and takes the next
    one: while one decodes, another computes, and none waits for another. So many batches are in flight as
    ``BATCHES_AHEAD`` says, whatever the number of images.

    Args:
        artefact: Opened with one thread; each further worker has a copy.
        inputs: Of ``find_inputs``; taken as they are needed.
        top: So many most probable classes.
        features: Embeddings as well.
        workers: All processors of this process by default.

    Raises:
        ConfigurationError: The file gives no features.
    """
    workers = workers or len(os.sched_getaffinity(0))
    idle = [artefact]

    def answer(batch: list[Input]) -> list[Prediction]:
        try:
            network = idle.pop()
        except IndexError:
            network = artefact.copy()
        try:
            return predict_batch(network, batch, top=top, features=features)
        finally:
            idle.append(network)

    pending: deque[Future[list[Prediction]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches(inputs):
                pending.append(pool.submit(answer, batch))
                if len(pending) >= BATCHES_AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def predict_batch(network: Artefact, batch: list[Input], *, top: int, features: bool = False) -> list[Prediction]:
    """Reads a batch and runs it; an image that cannot be read gives a Prediction with ``error``."""
    preprocessing = network.description.preprocessing
    names = network.description.class_names
    answers: list[Prediction] = []
    images: list[Pixels] = []
    for source in batch:
        try:
            images.append(read_input(source, preprocessing))
            answers.append(Prediction(source.name, (), ()))
        except ImageError as error:
            answers.append(Prediction(source.name, (), (), str(error)))
    if not images:
        return answers
    pixels = np.stack(images)
    probabilities = network.probabilities(pixels)
    embeddings = network.features(pixels) if features else None
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(probabilities, order, 1)
    row = 0
    for index, answer in enumerate(answers):
        if answer.error is None:
            classes = tuple(names[label] for label in order[row].tolist())
            embedding = None if embeddings is None else embeddings[row]
            answers[index] = Prediction(answer.path, classes, tuple(values[row].tolist()), None, embedding)
            row += 1
    return answers


def batches(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """``BATCH_SIZE`` at a time."""
    iterator = iter(inputs)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch
