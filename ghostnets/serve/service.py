"""What the routes share: the model in use, the places for images, the threads that take bodies apart."""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ghostnets.errors import GhostNetsError, ImageError
from ghostnets.serve.metrics import Metrics
from ghostnets.serve.model import ServedModel, load_copies
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.settings import Settings
from ghostnets.serve.uploads import Upload, is_form_or_json, read_uploads

__all__ = ["Service"]

logger = logging.getLogger("ghostnets.serve")


class Service:
    """The service behind the routes, in ``request.app.state.service``.

    Attributes:
        settings: As given.
        metrics: What it counts.
        model: What answers now; another one after ``reload``. Use it inside ``async with model.in_use()``.
        draining: Whether the process is about to end.
        images: Images accepted and not yet answered.
        buffered_bytes: Of bodies in memory.
    """

    model: ServedModel

    def __init__(self, path: str | os.PathLike[str], settings: Settings) -> None:
        self.path, self.settings = Path(path), settings
        self.token = settings.token()
        self.metrics = Metrics()
        self.draining = False
        self.images = self.buffered_bytes = 0
        self.metrics.images_in_service.set_function(lambda: self.images)
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        self._readers = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Opens the artefact. Raises GhostNetsError where it cannot be used."""
        self.model = await self._open()
        logger.info("model opened", extra=self._about(self.model))

    async def close(self) -> None:
        """Waits for what is being answered."""
        await self.model.close()
        self._readers.shutdown()

    async def reload(self) -> bool:
        """Opens the artefact's file again; the new one takes the place of the old once it has answered.

        Requests that are in the old model stay there. What cannot be used is refused, and the old one stays.

        Returns:
            Whether the new one is in use.
        """
        async with self._reloading:
            try:
                new = await self._open()
            except (GhostNetsError, OSError) as error:
                self.metrics.reloads.labels("refused").inc()
                logger.error("reload refused, the old model stays", extra={"error": str(error)})
                return False
            old, self.model = self.model, new
            self.metrics.reloads.labels("taken").inc()
            logger.info("model reloaded", extra={**self._about(new), "replaced": old.digest})
            await old.close()
            return True

    async def read(self, content_type: str, body: bytes) -> list[Upload]:
        """Takes a request's body apart. Raises RequestError as ``read_uploads``."""
        if not is_form_or_json(content_type):
            return read_uploads(content_type, body, max_images=self.settings.max_images)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._readers, lambda: read_uploads(content_type, body, max_images=self.settings.max_images)
        )

    def refuse_if_full(self, images: int = 1) -> None:
        """Raises RequestError (429) where there is no place for so many images."""
        if self.images + images > self.settings.max_queue:
            raise RequestError(
                429, f"all {self.settings.max_queue} places for images are taken; come again in a second."
            )

    def refuse_if_longer(self, content_length: str | None) -> None:
        """Raises RequestError (413) where a body is announced that is larger than the limit."""
        limit = self.settings.max_request_bytes
        if content_length is not None and content_length.isdecimal() and int(content_length) > limit:
            raise RequestError(
                413, f"the request is larger than {limit} bytes, the limit; send fewer or smaller images."
            )

    async def predict(self, uploads: Sequence[Upload], *, top: int) -> tuple[ServedModel, list[dict[str, Any]]]:
        """The model that answered, and a row for each image as ``schemas.ImageAnswer`` has it.

        Raises:
            RequestError: 429 where there is no place for so many images, 422 where the only image cannot be read.
        """
        with self._places(len(uploads)):
            async with self.model.in_use() as model:
                rows = await asyncio.gather(*(self._answer(model, i, upload, top) for i, upload in enumerate(uploads)))
        if len(rows) == 1 and rows[0]["error"]:
            raise RequestError(422, rows[0]["error"])
        return model, rows

    async def _answer(self, model: ServedModel, index: int, upload: Upload, top: int) -> dict[str, Any]:
        try:
            ranking = await model.rank(upload.content, upload.name or f"image {index}", top=top)
        except ImageError as error:
            self.metrics.images.labels("unreadable").inc()
            return {"name": upload.name, "answers": [], "error": str(error)}
        self.metrics.images.labels("answered").inc()
        names = model.description.class_names
        answers = [{"class": names[i], "probability": p} for i, p in zip(*ranking, strict=True)]
        return {"name": upload.name, "answers": answers, "error": None}

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        self.refuse_if_full(count)
        self.images += count
        try:
            yield
        finally:
            self.images -= count

    async def _open(self) -> ServedModel:
        """With a network more than threads: when one waits for the interpreter, another has work for its core."""
        opened = await asyncio.to_thread(
            load_copies, self.path, count=self._threads + 1, max_batch=self.settings.max_batch
        )
        return ServedModel(opened, self.settings, self.metrics)

    @staticmethod
    def _about(model: ServedModel) -> dict[str, Any]:
        return {
            "path": str(model.path),
            "model": model.digest,
            "architecture": model.description.architecture,
            "runtime": model.runtime,
        }
