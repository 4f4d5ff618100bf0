"""The routes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from ghostnets import __version__
from ghostnets.serve.explorer_routes import explorer_router
from ghostnets.serve.guard import Guard
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import Error, ImagesAsJson, ModelInfo, Predictions, Status
from ghostnets.serve.service import Service
from ghostnets.serve.settings import Settings
from ghostnets.serve.uploads import Upload

__all__ = ["PAGE", "build_app"]

PAGE = Path(__file__).with_name("page")
MAX_TOP = 1000

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The body is not what its content type says, or holds no image."},
    401: {"model": Error, "description": "The token is missing or wrong."},
    408: {"model": Error, "description": "The request did not arrive in time."},
    413: {"model": Error, "description": "Too many bytes or images."},
    415: {"model": Error, "description": "Another content type."},
    422: {"model": Error, "description": "The only image cannot be read, or a parameter is out of its range."},
    429: {
        "model": Error,
        "description": "The service is full.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    },
    431: {"model": Error, "description": "The headers are too large."},
}
FILE = {"type": "string", "format": "binary"}
BODIES = {
    "required": True,
    "content": {
        "image/*": {"schema": FILE},
        "application/octet-stream": {"schema": FILE},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": FILE, "minItems": 1}},
            }
        },
        "application/json": {"schema": ImagesAsJson.model_json_schema()},
    },
}

router = APIRouter()


def build_app(path: str | Path, settings: Settings, routers: Sequence[APIRouter]) -> FastAPI:
    """As ``ghostnets.serve.create_app``."""
    service = Service(path, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(title="ghostnets", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(Guard, service=service)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.router.routes.extend(router.routes)  # itself, not around it: a layer less for each request
    for part in (explorer_router(), *routers):
        app.include_router(part)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    else:
        app.add_api_route("/", _root, include_in_schema=False)
    return app


@router.post("/v1/predict", response_model=Predictions, responses=REFUSALS, openapi_extra={"requestBody": BODIES})
async def predict(
    request: Request,
    top: Annotated[int, Query(ge=1, le=MAX_TOP, description="So many most probable classes for each image.")] = 5,
) -> Response:
    """Classifies images: one as it is, several in a form, or in JSON as base64."""
    service: Service = request.app.state.service
    uploads = await receive_uploads(request)
    request.state.images = len(uploads)
    model, rows = await service.predict(uploads, top=top)
    return JSONResponse({"model": model.digest, "images": rows})


@router.get("/v1/model", response_model=ModelInfo, responses={401: REFUSALS[401]})
async def model(request: Request) -> Response:
    """What answers: changes when a new artefact is loaded."""
    used = request.app.state.service.model
    description = used.description
    return JSONResponse(
        {
            "model": used.digest,
            "architecture": description.architecture,
            "runtime": used.runtime,
            "class_names": description.class_names,
            "preprocessing": description.preprocessing.to_dict(),
        }
    )


@router.get("/healthz", response_model=Status)
async def healthz() -> Response:
    """Whether the process lives."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", response_model=Status, responses={503: {"model": Status, "description": "About to stop."}})
async def readyz(request: Request) -> Response:
    """Whether requests should come here."""
    if request.app.state.service.draining:
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401]})
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def receive_uploads(request: Request) -> list[Upload]:
    """The files in a request's body. For every route that takes images.

    Raises:
        RequestError: 429 where the service is full, before the body is read; 413 where it is too large; and as
            ``uploads.read_uploads``.
    """
    service: Service = request.app.state.service
    service.refuse_if_full()
    service.refuse_if_longer(request.headers.get("content-length"))
    return await service.read(request.headers.get("content-type", ""), await request.body())


async def _root() -> Response:
    return JSONResponse({"name": "ghostnets", "version": __version__, "api": "/openapi.json", "predict": "/v1/predict"})


async def _refuse(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RequestError)
    return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{error.detail}; /openapi.json lists what there is."}, error.status_code, error.headers
    )


async def _refuse_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reasons = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return JSONResponse({"error": f"{reasons}; /openapi.json lists what is taken."}, 422)
