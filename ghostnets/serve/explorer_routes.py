"""Routes of the ghost explorer, for a service that was given a checkpoint.

The explorer keeps no state for clients: each request contains its image. A single thread runs all requests outside the
event loop, so the forward hooks of one request never meet those of another.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ghostnets.errors import CheckpointError, ConfigurationError, ImageError
from ghostnets.preprocessing import Pixels
from ghostnets.serve.explorer_schemas import (
    AblationRequest,
    AblationResponse,
    CostResponse,
    GhostModulesResponse,
    MapsRequest,
    MapsResponse,
)
from ghostnets.serve.json_body import decode_base64, read_json
from ghostnets.serve.model import ServedModel
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import ErrorResponse

if TYPE_CHECKING:
    from ghostnets.checkpoints import Checkpoint
    from ghostnets.serve.explorer import Explorer

__all__ = ["explorer_router"]

MAX_PENDING = 8  # requests, including the one that is running
OTHER_TASK = "The ghost explorer shows how ghosts change the class of an image, and the model is {}."
NO_CHECKPOINT = "The ghost explorer needs the network in PyTorch; serve the checkpoint: ghostnets serve CHECKPOINT."

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    404: {"model": ErrorResponse, "description": "The served model is not a checkpoint of a classifier."},
    409: {"model": ErrorResponse, "description": "The file is not the one that predictions come from."},
    413: {"model": ErrorResponse, "description": "Too many bytes."},
    422: {"model": ErrorResponse, "description": "The image cannot be read, or the request is invalid."},
    429: {"model": ErrorResponse, "description": "Too many requests at a time."},
}

T = TypeVar("T")


class ExplorerWorker:
    """Runs requests in one thread, on the explorer of the model in use."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.thread = thread
        self.pending = 0
        self.digest = ""
        self.explorer: Explorer

    async def run(self, model: ServedModel, task: "Callable[[Explorer], T]") -> T:
        """Call ``task`` in the thread with the explorer of ``model``.

        Raises:
            RequestError: 404 if the model is not a checkpoint of a classifier, 409 if its file is no longer the one
                that predictions come from, 429 if too many requests are pending, 422 if the request is invalid.
        """
        if reason := why_absent(model):
            raise RequestError(404, reason)
        if self.pending >= MAX_PENDING:
            raise RequestError(429, f"{MAX_PENDING} requests to the ghost explorer are pending; retry in a second.")
        self.pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, lambda: task(self._open(model)))
        except (ConfigurationError, ImageError) as error:
            raise RequestError(422, str(error)) from error
        finally:
            self.pending -= 1

    def _open(self, model: ServedModel) -> "Explorer":
        if self.digest != model.digest:
            from ghostnets.serve.explorer import Explorer

            self.explorer = Explorer(_read_again(model))
            self.digest = model.digest
        return self.explorer


def _read_again(model: ServedModel) -> "Checkpoint":
    """Read the checkpoint, which must have the same bytes as the served model; RequestError (409) if not."""
    from ghostnets.checkpoints import read_checkpoint

    try:
        checkpoint = read_checkpoint(model.path)
    except (CheckpointError, OSError) as error:
        raise RequestError(409, f"the checkpoint was changed after it was loaded ({error})") from error
    if checkpoint.sha256 != model.description.source_sha256:
        raise RequestError(
            409,
            f"{model.path.name} was replaced after it was loaded, and predictions still come from the old one; reload"
            " the service (SIGHUP), so that both come from the new one.",
        )
    return checkpoint


def why_absent(model: ServedModel) -> str:
    """Return why the model cannot be explored; empty if it can."""
    if model.task != "classify":
        return OTHER_TASK.format("a detector" if model.task == "detect" else "a segmentation network")
    return "" if model.path.suffix == ".safetensors" else NO_CHECKPOINT


def explorer_router(thread: ThreadPoolExecutor) -> APIRouter:
    """Create the routes under ``/v1/explain`` for one application, whose requests run in the single ``thread``."""
    router = APIRouter(prefix="/v1/explain", tags=["explain"], responses=ERROR_RESPONSES)
    worker = ExplorerWorker(thread)

    @router.get("")
    async def list_ghost_modules(request: Request) -> GhostModulesResponse:
        """List the Ghost modules of the network."""
        model = _model(request)
        if reason := why_absent(model):
            return GhostModulesResponse(layers=[], absent=reason)
        return await worker.run(model, lambda explorer: explorer.module_info)

    @router.get("/cost")
    async def cost(request: Request) -> CostResponse:
        """Return multiply-adds and time by layer, measured at the first request."""
        return await worker.run(_model(request), lambda explorer: explorer.cost)

    @router.post("/maps", openapi_extra=_request_body(MapsRequest))
    async def maps(request: Request) -> MapsResponse:
        """Compute the intrinsic maps of a Ghost module for an image, with their ghosts and kernels."""
        model, body = _model(request), await request.body()

        def task(explorer: "Explorer") -> MapsResponse:
            parsed = read_json(MapsRequest, body)  # in the thread: megabytes of base64 take time
            return explorer.maps(_pixels(model, parsed.image), parsed.layer)

        return await worker.run(model, task)

    @router.post("/without", openapi_extra=_request_body(AblationRequest))
    async def ablate(request: Request) -> AblationResponse:
        """Classify an image with all ghosts enabled and with some disabled."""
        model, body = _model(request), await request.body()

        def task(explorer: "Explorer") -> AblationResponse:
            parsed = read_json(AblationRequest, body)
            return explorer.ablate(_pixels(model, parsed.image), parsed.off, fill=parsed.fill, top=parsed.top)

        return await worker.run(model, task)

    return router


def _model(request: Request) -> ServedModel:
    model: ServedModel = request.app.state.service.model
    return model


def _request_body(schema: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _pixels(model: ServedModel, image: str) -> Pixels:
    """Decode a base64 image file; raises ImageError or ConfigurationError."""
    try:
        content = decode_base64(image)
    except ValueError as error:
        raise ConfigurationError(f"image is not base64 ({error}); send the file's bytes as base64.") from error
    return model.pixels(content, "the image")
