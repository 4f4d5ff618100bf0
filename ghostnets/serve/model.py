"""The model being served: copies of one network that run concurrently, behind a batcher."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ghostnets.artefacts import Classifier, Model, ObjectDetector, Segmenter, open_model
from ghostnets.errors import ArtefactError, ConfigurationError
from ghostnets.preprocessing import FittedImage, Pixels
from ghostnets.serve.answers import detect, rank, segment
from ghostnets.serve.batching import Batcher
from ghostnets.serve.metrics import Metrics
from ghostnets.serve.settings import ServiceSettings

__all__ = ["LoadedModel", "ServedModel", "load_copies"]

RUN: dict[str, Callable[[Any, list[Any], list[int]], list[Any]]] = {
    "classify": rank,
    "detect": detect,
    "segment": segment,
}  # by the task of the network


class LoadedModel:
    """Copies of one network, warmed up by ``load_copies``.

    Attributes:
        copies: Classifiers, detectors or segmenters that run concurrently, each in one thread.
        digest: First 12 digits of the SHA-256 of the file, and of its weights where those are in a second file.
    """

    def __init__(self, copies: "list[Classifier] | list[ObjectDetector] | list[Segmenter]", digest: str) -> None:
        self.copies, self.digest = copies, digest


def load_copies(
    path: Path,
    *,
    count: int,
    max_batch: int,
    device: str = "cpu",
    precision: str,
    threshold: float | None = None,
) -> LoadedModel:
    """Load ``count`` copies of a network and run each with every batch size up to ``max_batch``.

    Args:
        path: The file.
        count: Number of copies.
        max_batch: Largest batch.
        device: Device, as for ``open_model``.
        precision: Precision, as for ``open_model``.
        threshold: Score that a detector's objects must exceed.

    Raises:
        GhostNetsError: The file cannot be opened, as in ``open_model``; its outputs are not finite; or it changed
            meanwhile.
    """
    before = _digest(path)
    model = open_model(path, threads=1, device=device, precision=precision)
    first = _as_network(model, threshold)
    copies: list[Any] = [first, *(first.copy() for _ in range(count - 1))]
    preprocessing = model.description.preprocessing
    side = preprocessing.image_size
    for network in copies:
        for size in range(1, max_batch + 1):
            pixels = np.zeros((size, side, side, preprocessing.channels), np.uint8)
            if isinstance(network, ObjectDetector):
                network.detect([FittedImage(image, (side, side)) for image in pixels], [""] * size)
            elif isinstance(network, Segmenter):
                network.segment([FittedImage(pixels[0], (side, side))], [""])
            elif not np.isfinite(network.run(pixels).scores).all():
                raise ArtefactError(f"{path} returns numbers that are not finite; export the network again.")
    if _digest(path) != before:
        raise ArtefactError(f"{path} changed while it was opened; write to another name and rename it, then try again.")
    return LoadedModel(copies, before)


def _as_network(model: Model, threshold: float | None) -> Any:
    """The model as what its task needs; raises ConfigurationError for a threshold that it does not have."""
    if model.description.task == "detect":
        return ObjectDetector(model, threshold=threshold)
    if model.description.task == "segment":
        if threshold is not None:
            raise ConfigurationError(
                f"{model.path} is a segmentation network, for which there is no --threshold; omit it."
            )
        return Segmenter(model)
    return Classifier(model)


class ServedModel:
    """A loaded model behind a batcher, until it is closed; created inside a running event loop.

    Attributes:
        path: The file.
        digest: Digest of the file, as in ``LoadedModel``.
        description: Description of the network.
        runtime: Name and version of the runtime.
        note: Why it runs in its precision, or empty.
        task: Task of the network.
        run: Batcher whose results are a ``Ranking``, the ``DetectedObjects`` of a detector, or the ``Mask`` of a
            segmentation network.
    """

    def __init__(self, loaded: LoadedModel, settings: ServiceSettings, metrics: Metrics) -> None:
        first = loaded.copies[0].model
        self.path, self.description, self.runtime = first.path, first.description, first.runtime
        self.note = first.note
        self.digest = loaded.digest
        self.metrics = metrics
        self.preprocessing = replace(first.description.preprocessing, max_pixels=settings.max_pixels)
        self.task = self.description.task
        self.run: Batcher[Any, Any, Any] = Batcher(
            loaded.copies,
            self._decode,
            RUN[self.task],
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            observe=metrics.observe_batch,
        )
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator["ServedModel"]:
        """Keep the model open inside the context."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Wait for all users to finish, and end the threads."""
        await self.unused()
        self.end()

    async def unused(self) -> None:
        """Wait for all users to finish."""
        await self._unused.wait()

    def end(self) -> None:
        """End the threads, each after its batch."""
        self.run.close()

    def pixels(self, content: bytes | Pixels, name: str) -> Pixels:
        """Read an image, the bytes of a file or uint8 (H, W, C), and preprocess it for the network, uint8 (S, S, C).

        Raises:
            ImageError: The file cannot be read, or has too many pixels.
        """
        return self.preprocessing.pixels(content, name=name)

    def _decode(self, content: bytes | Pixels, name: str) -> Pixels | FittedImage:
        start = time.perf_counter()
        image = self.pixels(content, name) if self.task == "classify" else self.preprocessing.fitted(content, name=name)
        self.metrics.decode_seconds.observe(time.perf_counter() - start)
        return image


def _digest(path: Path) -> str:
    content = hashlib.sha256()
    for file in (path, path.with_suffix(".bin")):  # OpenVINO keeps weights in a file next to the .xml
        if file.is_file():
            with file.open("rb") as stream:
                content.update(hashlib.file_digest(stream, "sha256").digest())
    return content.hexdigest()[:12]
