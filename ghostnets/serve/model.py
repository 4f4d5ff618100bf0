"""One artefact at work: copies of its network that run side by side, and what it wants images to be like."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Artefact, open_artefact
from ghostnets.errors import ArtefactError
from ghostnets.serve.batching import Batcher
from ghostnets.serve.metrics import Metrics
from ghostnets.serve.settings import ServiceSettings

__all__ = ["Model", "OpenedArtefact", "open_copies"]

Pixels = npt.NDArray[np.uint8]


class OpenedArtefact:
    """What ``open_copies`` gives: copies of one artefact, each of which has answered.

    Attributes:
        copies: They run side by side, each in one thread.
        digest: First 12 digits of the file's SHA-256; of a file and the weights beside it where there are two.
    """

    def __init__(self, copies: list[Artefact], digest: str) -> None:
        self.copies, self.digest = copies, digest


def open_copies(path: Path, *, count: int, max_batch: int) -> OpenedArtefact:
    """Opens an artefact and asks each of so many copies something, in every size of batch up to ``max_batch``.

    Raises:
        GhostNetsError: As ``open_artefact``; or it does not answer, or the file changed meanwhile.
    """
    before = _digest(path)
    first = open_artefact(path, threads=1)
    copies = [first, *(first.copy() for _ in range(count - 1))]
    description = copies[0].description
    side = description.preprocessing.image_size
    for artefact in copies:
        for size in range(1, max_batch + 1):
            rows = artefact.probabilities(np.zeros((size, side, side, description.preprocessing.channels), np.uint8))
            if not np.isfinite(rows).all():
                raise ArtefactError(f"{path} answers with numbers that are not finite; export the network again.")
    if _digest(path) != before:
        raise ArtefactError(f"{path} changed while it was opened; write it beside and rename it, then try again.")
    return OpenedArtefact(copies, before)


class Model:
    """An opened artefact that takes images, until it is closed; made inside a running event loop.

    Attributes:
        path: The artefact's file.
        digest: As ``OpenedArtefact``.
        description: As ``Artefact``.
        runtime: As ``Artefact``.
    """

    def __init__(self, opened: OpenedArtefact, settings: ServiceSettings, metrics: Metrics) -> None:
        first = opened.copies[0]
        self.path, self.description, self.runtime = first.path, first.description, first.runtime
        self.digest = opened.digest
        self.max_pixels = settings.max_pixels
        self.metrics = metrics
        self.preprocessing = first.description.preprocessing
        self.rank = Batcher(
            [copy.probabilities for copy in opened.copies],
            self._decode,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            observe=metrics.observe_batch,
        )
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator["Model"]:
        """While in it, the model stays open."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def close(self) -> None:
        """Waits for those that use it, and ends its threads."""
        await self._unused.wait()
        self.rank.close()

    def pixels(self, content: bytes, name: str) -> Pixels:
        """The bytes of an image file -> uint8 (H, W, C), as the network wants it.

        Raises:
            ImageError: It cannot be read, or has too many pixels.
        """
        return self.preprocessing.pixels(io.BytesIO(content), name=name, max_pixels=self.max_pixels)

    def _decode(self, content: bytes, name: str) -> Pixels:
        start = time.perf_counter()
        image = self.pixels(content, name)
        self.metrics.decode_seconds.observe(time.perf_counter() - start)
        return image


def _digest(path: Path) -> str:
    content = hashlib.sha256()
    for file in (path, path.with_suffix(".bin")):  # OpenVINO's weights stand beside its .xml
        if file.is_file():
            with file.open("rb") as stream:
                content.update(hashlib.file_digest(stream, "sha256").digest())
    return content.hexdigest()[:12]
