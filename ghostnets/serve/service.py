"""State shared by all routes: model in use, capacity, body parsing, reload."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ghostnets.artefacts.boxes import MAX_BOXES
from ghostnets.cores import usable_cores
from ghostnets.errors import GhostNetsError, ImageError
from ghostnets.preprocessing import Pixels
from ghostnets.serve.answers import Mask, answer_with_classes, answer_with_mask, answer_with_objects
from ghostnets.serve.hosts import AllowedHosts
from ghostnets.serve.metrics import Metrics
from ghostnets.serve.model import ServedModel, load_copies
from ghostnets.serve.request_error import RequestError, body_too_large
from ghostnets.serve.settings import ServiceSettings
from ghostnets.serve.uploads import Upload, is_form_or_json, read_uploads

__all__ = ["Service"]

logger = logging.getLogger("ghostnets.serve")

TOP = 5  # classes of an answer by default

T = TypeVar("T")


class Service:
    """The service behind the routes, available as ``request.app.state.service``.

    Attributes:
        settings: Limits of the service.
        hosts: Host names to which the service responds; None for all, as in an application run by another server.
        metrics: Prometheus metrics.
        model: Model in use, replaced by ``reload``; use it inside ``async with model.in_use()``.
        draining: Whether the process is shutting down.
        images: Number of images accepted and not yet answered.
        buffered_bytes: Bytes of request bodies in memory.
    """

    model: ServedModel

    def __init__(self, path: str | os.PathLike[str], settings: ServiceSettings) -> None:
        self.path, self.settings = Path(path), settings
        self.token = settings.token()
        self.hosts: AllowedHosts | None = None
        self.metrics = Metrics()
        self.draining = False
        self.images = self.buffered_bytes = 0
        self.metrics.images_in_service.set_function(lambda: self.images)
        self._threads = settings.threads or usable_cores()
        self.explorer_thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._parsers = ThreadPoolExecutor(self._threads, thread_name_prefix="parse")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._reload_lock = asyncio.Lock()

    async def start(self) -> None:
        """Open the artefact; raises GhostNetsError if it cannot be used."""
        self.model = await self._open()
        logger.info("model opened", extra=self._log_fields(self.model))

    async def close(self, timeout: float | None = None) -> bool:
        """Wait for running predictions and release the model.

        Args:
            timeout: Longest time to wait in seconds, without limit by default.

        Returns:
            Whether everything has ended; otherwise threads continue with work whose result is no longer needed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self.model.unused()
        except TimeoutError:
            pass  # the threads are still asked to end
        executors = (self.explorer_thread, self._parsers, self._loader)

        def wait() -> None:
            self.model.end()
            for executor in executors:
                executor.shutdown(cancel_futures=True)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(None if deadline is None else max(0.1, deadline - time.monotonic()))
        return not waiting.is_alive()

    async def reload(self) -> bool:
        """Open the artefact's file again and replace the model in use.

        Running requests finish on the old model. If the new file cannot be used, the old model stays.

        Returns:
            Whether the new model is in use.
        """
        async with self._reload_lock:
            try:
                new = await self._open()
            except (GhostNetsError, OSError) as error:
                self.metrics.reloads.labels("rejected").inc()
                logger.error("reload rejected, the old model stays", extra={"error": str(error)})
                return False
            old, self.model = self.model, new
            self.metrics.reloads.labels("accepted").inc()
            logger.info("model reloaded", extra={**self._log_fields(new), "replaced": old.digest})
            await old.close()
            return True

    async def read(self, content_type: str, body: bytes) -> list[Upload]:
        """Extract the files from a request body; raises the RequestErrors of ``read_uploads``."""
        read = partial(read_uploads, content_type, body, max_images=self.settings.max_images)
        return await self.in_parser(read) if is_form_or_json(content_type) else read()

    async def in_parser(self, parse: Callable[..., T], *arguments: Any) -> T:
        """Call a function that parses a body in a thread for that."""
        return await asyncio.get_running_loop().run_in_executor(self._parsers, parse, *arguments)

    def admit(self, content_length: str | None) -> None:
        """Reject a request with images before its body is read: RequestError 429 if full, 413 if it is too large."""
        self.check_capacity()
        self.check_content_length(content_length)

    def check_capacity(self, images: int = 1) -> None:
        """Raise RequestError (429) if the queue has no room for this many images."""
        if self.images + images > self.settings.max_queue:
            raise RequestError(429, f"the queue of {self.settings.max_queue} images is full; retry in a second.")

    def check_content_length(self, content_length: str | None) -> None:
        """Raise RequestError (413) if the announced body exceeds the limit."""
        limit = self.settings.max_request_bytes
        if content_length is not None and content_length.isdecimal() and int(content_length) > limit:
            raise body_too_large(limit)

    async def predict(self, uploads: Sequence[Upload], *, top: int | None) -> tuple[ServedModel, list[dict[str, Any]]]:
        """Classify images, find objects in them, or segment them.

        Args:
            uploads: The images.
            top: Largest number of classes, or of objects; None for the default of the task.

        Returns:
            The model used, and a ``schemas.ImagePredictionInfo``, ``schemas.ImageObjectsInfo`` or
            ``schemas.ImageMaskInfo`` as a dict for each image.

        Raises:
            RequestError: 429 if the queue has no room for all images, 422 if the only image cannot be read.
        """
        with self._queued(len(uploads)):
            async with self.model.in_use() as model:
                rows = await asyncio.gather(*(self._predict(model, i, upload, top) for i, upload in enumerate(uploads)))
        if len(rows) == 1 and rows[0]["error"]:
            raise RequestError(422, rows[0]["error"])
        return model, rows

    async def run_all(self, images: Sequence[bytes] | Pixels) -> tuple[ServedModel, list[Any]]:
        """Run the model on each image.

        Args:
            images: Contents of files, or uint8 (N, H, W, C).

        Returns:
            The model used, and the result of ``ServedModel.run`` for each image: of a classifier all classes.

        Raises:
            RequestError: 429 if the queue has no room for all images, 422 if one of them cannot be read, 413 if their
                masks have too many pixels.
        """
        pixels = 0

        async def run(model: ServedModel, index: int, image: bytes | Pixels) -> Any:
            nonlocal pixels
            result = await model.run(image, f"image {index}", top=len(model.description.class_names))
            if isinstance(result, Mask):  # small files may have large masks: those beyond the limit are not kept
                pixels += result.classes.size
                if pixels > self.settings.max_pixels:
                    raise RequestError(
                        413,
                        f"the classes of {len(images)} images have more than {self.settings.max_pixels:,} pixels, the"
                        " limit; split the request.",
                    )
            return result

        with self._queued(len(images)):
            async with self.model.in_use() as model:
                results = (run(model, i, image) for i, image in enumerate(images))
                outcomes = await asyncio.gather(*results, return_exceptions=True)
        found: list[Any] = []
        problems = []
        for outcome in outcomes:
            self.metrics.images.labels("unreadable" if isinstance(outcome, ImageError) else "answered").inc()
            if isinstance(outcome, ImageError):
                problems.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                found.append(outcome)
        if problems:
            raise RequestError(422, problems[0])
        return model, found

    async def _predict(self, model: ServedModel, index: int, upload: Upload, top: int | None) -> dict[str, Any]:
        names, multi_label = model.description.class_names, model.description.multi_label
        top = top or {"classify": TOP, "detect": MAX_BOXES}.get(model.task, len(names))
        result = problem = None
        try:
            needed = len(names) if multi_label else top  # all labels above the threshold are named
            result = await model.run(upload.content, upload.name or f"image {index}", top=needed)
        except ImageError as error:
            problem = str(error)
        self.metrics.images.labels("answered" if problem is None else "unreadable").inc()
        if model.task == "detect":
            fields = answer_with_objects(result, top=top)
        elif model.task == "segment":
            fields = await self.in_parser(partial(answer_with_mask, result, names, top=top))  # it encodes the mask
        else:
            threshold = self.settings.threshold
            fields = answer_with_classes(result, names, top=top, threshold=threshold, multi_label=multi_label)
        return {"name": upload.name, **fields, "error": problem}

    @contextmanager
    def _queued(self, images: int) -> Iterator[None]:
        self.check_capacity(images)
        self.images += images
        try:
            yield
        finally:
            self.images -= images

    async def _open(self) -> ServedModel:
        """Open one copy more than threads: while one waits for the interpreter lock, another uses its core."""
        load = partial(
            load_copies,
            self.path,
            count=self._threads + 1,
            max_batch=self.settings.max_batch,
            device=self.settings.device,
            precision=self.settings.precision,
            threshold=self.settings.threshold,
        )
        loaded = await asyncio.get_running_loop().run_in_executor(self._loader, load)
        return ServedModel(loaded, self.settings, self.metrics)

    @staticmethod
    def _log_fields(model: ServedModel) -> dict[str, Any]:
        return {
            "path": str(model.path),
            "model": model.digest,
            "architecture": model.description.architecture,
            "runtime": model.runtime,
            "precision": model.description.precision,
            **({"choice": model.note} if model.note else {}),
        }
