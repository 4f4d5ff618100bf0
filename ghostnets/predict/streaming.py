"""Streaming inference: batches are decoded and run in parallel, and returned in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from ghostnets.artefacts import Classifier, DetectedObjects, ObjectDetector, Prediction, SegmentedImage, Segmenter
from ghostnets.artefacts.classifier import BATCH_SIZE
from ghostnets.cores import usable_cores
from ghostnets.errors import ImageError
from ghostnets.predict.inputs import Input, read_content_of, read_input
from ghostnets.preprocessing import FittedImage, Pixels

__all__ = ["detect_objects", "group_into_batches", "predict_batch", "predict_images", "segment_images"]

Network = TypeVar("Network")
Result = TypeVar("Result")

MASKS_AT_ONCE = 4  # per worker: masks of large images are large
BATCHES_AHEAD = 3  # batches in flight per worker: being decoded, being run, or waiting for their turn


def predict_images(
    classifier: Classifier, inputs: Iterable[Input], *, top: int, features: bool = False, workers: int | None = None
) -> Iterator[list[Prediction]]:
    """Yield predictions in the order of ``inputs``, a batch at a time.

    Each worker is a thread that decodes a batch, runs it in its own copy of the network with one thread, and takes the
    next batch: while one worker decodes another computes. At most ``BATCHES_AHEAD`` batches per worker are in flight,
    whatever the number of images.

    Args:
        classifier: Network opened with one thread; each further worker uses a copy.
        inputs: Images as found by ``find_inputs``, consumed as needed.
        top: Number of most probable classes per image.
        features: Return the features as well.
        workers: Number of threads; all processors of this process by default.

    Raises:
        ConfigurationError: The file has no features.
        ArtefactError: The runtime fails.
    """

    def run(network: Classifier, batch: list[Input]) -> list[Prediction]:
        return predict_batch(network, batch, top=top, features=features)

    return _stream(classifier, inputs, run, classifier.copy, workers or usable_cores())


def detect_objects(
    detector: ObjectDetector, inputs: Iterable[Input], *, workers: int | None = None
) -> Iterator[list[DetectedObjects]]:
    """Yield the objects found in ``inputs``, in their order, a batch at a time, as ``predict_images``.

    Args:
        detector: Detector opened with one thread; each further worker uses a copy.
        inputs: Images as found by ``find_inputs``, consumed as needed.
        workers: Number of threads; all processors of this process by default.

    Raises:
        ArtefactError: The runtime fails.
    """
    return _stream(detector, inputs, _detect_batch, detector.copy, workers or usable_cores())


def segment_images(
    segmenter: Segmenter,
    inputs: Iterable[Input],
    use: Callable[[Input, SegmentedImage], Result],
    *,
    workers: int | None = None,
) -> Iterator[list[Result]]:
    """Segment ``inputs``, and yield what ``use`` returns of each, in their order, a batch at a time.

    Masks are large, so they are used where they are made: a worker holds few of them.

    Args:
        segmenter: Segmenter opened with one thread; each further worker uses a copy.
        inputs: Images as found by ``find_inputs``, consumed as needed.
        use: Called in a worker with an image and its mask; an image that cannot be read has ``error``.
        workers: Number of threads; all processors of this process by default.

    Raises:
        ArtefactError: The runtime fails.
    """

    def run(network: Segmenter, batch: list[Input]) -> list[Result]:
        results: list[Result] = []
        for start in range(0, len(batch), MASKS_AT_ONCE):
            results += _segment_batch(network, batch[start : start + MASKS_AT_ONCE], use)
        return results

    return _stream(segmenter, inputs, run, segmenter.copy, workers or usable_cores())


def _segment_batch(
    segmenter: Segmenter, batch: list[Input], use: Callable[[Input, SegmentedImage], Result]
) -> list[Result]:
    """Read and segment a few images, and use their masks."""
    results: dict[int, Result] = {}
    images: dict[int, FittedImage] = {}
    for index, source in enumerate(batch):
        try:
            images[index] = segmenter.read(read_content_of(source), name=source.name)
        except ImageError as error:
            results[index] = use(source, SegmentedImage(source.name, error=str(error)))
    found = segmenter.segment(list(images.values()), [batch[index].name for index in images])
    results |= {index: use(batch[index], segmented) for index, segmented in zip(images, found, strict=True)}
    return [results[index] for index in range(len(batch))]


def _stream(
    network: Network,
    inputs: Iterable[Input],
    run: Callable[[Network, list[Input]], list[Result]],
    copy: Callable[[], Network],
    workers: int,
) -> Iterator[list[Result]]:
    """Run batches in worker threads, each with a network of its own, and yield their results in order."""
    idle = [network]

    def run_batch(batch: list[Input]) -> list[Result]:
        try:
            own = idle.pop()
        except IndexError:
            own = copy()
        try:
            return run(own, batch)
        finally:
            idle.append(own)

    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in group_into_batches(inputs):
                pending.append(pool.submit(run_batch, batch))
                if len(pending) >= BATCHES_AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def predict_batch(classifier: Classifier, batch: list[Input], *, top: int, features: bool = False) -> list[Prediction]:
    """Read a batch and classify it; an image that cannot be read gives a Prediction with ``error``."""
    errors: dict[int, Prediction] = {}
    images: dict[int, Pixels] = {}
    for index, source in enumerate(batch):
        try:
            images[index] = read_input(source, classifier.preprocessing)
        except ImageError as error:
            errors[index] = Prediction(source.name, (), (), str(error))
    if not images:
        return list(errors.values())
    names = [batch[index].name for index in images]
    predictions = classifier.predict(np.stack(list(images.values())), names, top=top, features=features)
    by_index = errors | dict(zip(images, predictions, strict=True))
    return [by_index[index] for index in range(len(batch))]


def _detect_batch(detector: ObjectDetector, batch: list[Input]) -> list[DetectedObjects]:
    """Read a batch and find its objects; an image that cannot be read gives a result with ``error``."""
    results: dict[int, DetectedObjects] = {}
    images: dict[int, FittedImage] = {}
    for index, source in enumerate(batch):
        try:
            images[index] = detector.read(read_content_of(source), name=source.name)
        except ImageError as error:
            results[index] = DetectedObjects(source.name, error=str(error))
    found = detector.detect(list(images.values()), [batch[index].name for index in images])
    results |= zip(images, found, strict=True)
    return [results[index] for index in range(len(batch))]


def group_into_batches(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Group the inputs into lists of ``BATCH_SIZE``."""
    iterator = iter(inputs)
    while batch := list(islice(iterator, BATCH_SIZE)):
        yield batch
