"""The ghost explorer's routes, for a service that answers from a checkpoint.

No state is kept for a client: each question brings its image. One thread does all the work, off the event loop, so the
hooks that watch the network and switch its ghosts off never meet those of another question.
"""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ghostnets.errors import ConfigurationError, ImageError
from ghostnets.preprocessing import Pixels
from ghostnets.serve.explorer_schemas import Cost, Maps, MapsQuestion, Outline, Without, WithoutQuestion
from ghostnets.serve.json_body import read_json
from ghostnets.serve.model import ServedModel
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import Error

if TYPE_CHECKING:
    from ghostnets.serve.explorer import Explorer

__all__ = ["explorer_router"]

WAITING = 8  # questions at a time, with the one that is being answered
ABSENT = "The ghost explorer needs the network in PyTorch; serve the checkpoint itself: ghostnets serve CHECKPOINT."

REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Error, "description": "The token is missing or wrong."},
    404: {"model": Error, "description": "There is nothing to explore."},
    413: {"model": Error, "description": "Too many bytes."},
    422: {"model": Error, "description": "The image cannot be read, or the question is no such one."},
    429: {"model": Error, "description": "Too many questions at a time."},
}

T = TypeVar("T")


class Exploration:
    """The explorer of the model in use, and the thread that it works in."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explorer")
        self.waiting = 0
        self.digest = ""
        self.explorer: Explorer

    async def run(self, model: ServedModel, work: "Callable[[Explorer], T]") -> T:
        """Calls ``work`` in the thread, with the explorer of ``model``.

        Raises:
            RequestError: 404 where the model is no checkpoint, 429 where too many wait, 422 where the question is at
                fault.
        """
        if not has_network(model):
            raise RequestError(404, ABSENT)
        if self.waiting >= WAITING:
            raise RequestError(429, f"{WAITING} questions to the ghost explorer are waiting; come again in a second.")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, lambda: work(self._opened(model)))
        except (ConfigurationError, ImageError) as error:
            raise RequestError(422, str(error)) from error
        finally:
            self.waiting -= 1

    def _opened(self, model: ServedModel) -> "Explorer":
        if self.digest != model.digest:
            from ghostnets.checkpoints import read_checkpoint
            from ghostnets.serve.explorer import Explorer

            self.explorer = Explorer(read_checkpoint(model.path))
            self.digest = model.digest
        return self.explorer


def has_network(model: ServedModel) -> bool:
    """Whether it was opened from a checkpoint."""
    return model.path.suffix == ".safetensors"


def explorer_router() -> APIRouter:
    """The routes under ``/v1/explain``, for one application."""
    router = APIRouter(prefix="/v1/explain", tags=["explain"], responses=REFUSALS)
    exploration = Exploration()

    @router.get("")
    async def outline(request: Request) -> Outline:
        """The Ghost modules of the network."""
        model = _model(request)
        if not has_network(model):
            return Outline(layers=[], absent=ABSENT)
        return await exploration.run(model, lambda explorer: explorer.outline)

    @router.get("/cost")
    async def cost(request: Request) -> Cost:
        """Multiply-adds and time by layer; the first question measures them."""
        return await exploration.run(_model(request), lambda explorer: explorer.cost)

    @router.post("/maps", openapi_extra=_body(MapsQuestion))
    async def maps(request: Request) -> Maps:
        """Intrinsic maps of one Ghost module for an image, each with its ghosts and their kernels."""
        model, body = _model(request), await request.body()

        def work(explorer: "Explorer") -> Maps:
            question = read_json(MapsQuestion, body)  # in the thread: megabytes of base64 take their time
            return explorer.maps(_pixels(model, question.image), question.layer)

        return await exploration.run(model, work)

    @router.post("/without", openapi_extra=_body(WithoutQuestion))
    async def without(request: Request) -> Without:
        """The answer for an image with every ghost on, and with some off."""
        model, body = _model(request), await request.body()

        def work(explorer: "Explorer") -> Without:
            question = read_json(WithoutQuestion, body)
            return explorer.without(_pixels(model, question.image), question.off, fill=question.fill, top=question.top)

        return await exploration.run(model, work)

    return router


def _model(request: Request) -> ServedModel:
    model: ServedModel = request.app.state.service.model
    return model


def _body(question: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": question.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _pixels(model: ServedModel, image: str) -> Pixels:
    """Raises ImageError, ConfigurationError."""
    try:
        content = base64.b64decode(image, validate=True)
    except ValueError as error:
        raise ConfigurationError(f"image is no standard base64 ({error}); send the bytes of a file so.") from error
    return model.pixels(content, "the image")
