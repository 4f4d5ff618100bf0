"""Application factory, prediction routes and error handlers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ghostnets import __version__
from ghostnets.serve import inference_protocol
from ghostnets.serve.explorer_routes import explorer_router
from ghostnets.serve.middleware import ServiceMiddleware
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import ErrorResponse, HealthResponse, ModelInfo, PredictRequest, PredictResponse
from ghostnets.serve.service import Service
from ghostnets.serve.settings import ServiceSettings
from ghostnets.serve.uploads import Upload

__all__ = ["PAGE", "build_app"]

PAGE = Path(__file__).with_name("page")
MAX_TOP = 1000
TOP_DESCRIPTION = (
    "Number of most probable classes per image, 5 by default; of a detector, largest number of objects, those with the"
    " highest scores, 100 by default; of a segmentation network, of the listed classes, all by default."
)

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The body does not match its content type, or contains no image."},
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    408: {"model": ErrorResponse, "description": "The request did not arrive in time."},
    413: {"model": ErrorResponse, "description": "Too many bytes or images."},
    415: {"model": ErrorResponse, "description": "Unsupported content type."},
    421: {"model": ErrorResponse, "description": "The service does not answer for this host name."},
    422: {"model": ErrorResponse, "description": "The only image cannot be read, or a parameter is out of range."},
    429: {
        "model": ErrorResponse,
        "description": "The service is at capacity.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    },
    431: {"model": ErrorResponse, "description": "The headers are too large."},
}
FILE_SCHEMA = {"type": "string", "format": "binary"}
REQUEST_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": FILE_SCHEMA},
        "application/octet-stream": {"schema": FILE_SCHEMA},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": FILE_SCHEMA, "minItems": 1}},
            }
        },
        "application/json": {"schema": PredictRequest.model_json_schema()},
    },
}

router = APIRouter()


def build_app(path: str | Path, settings: ServiceSettings, routers: Sequence[APIRouter]) -> FastAPI:
    """Build the application; see ``ghostnets.serve.create_app``."""
    service = Service(path, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="ghostnets", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.add_middleware(ServiceMiddleware, service=service)
    app.add_exception_handler(RequestError, _handle_request_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.router.routes.extend(router.routes)  # not include_router: one layer less per request
    app.include_router(inference_protocol.router, responses=ERROR_RESPONSES)
    for additional in (explorer_router(service.explorer_thread), *routers):
        app.include_router(additional)
    if PAGE.is_dir():
        # A route per file: a mount at / would match all paths, so wrong methods on other routes would get 404, not 405.
        page = StaticFiles(directory=PAGE, html=True)
        paths = ["/", *(f"/{file.name}" for file in sorted(PAGE.iterdir()))]
        app.router.routes.extend(Route(path, page, methods=["GET"], include_in_schema=False) for path in paths)
    else:
        app.add_api_route("/", _root, include_in_schema=False)
    return app


@router.post(
    "/v1/predict",
    response_model=PredictResponse,
    responses=ERROR_RESPONSES,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def predict(
    request: Request,
    top: Annotated[int | None, Query(ge=1, le=MAX_TOP, description=TOP_DESCRIPTION)] = None,
) -> Response:
    """Classify, detect or segment: one image as the raw body, several as a form, or base64 in JSON."""
    service: Service = request.app.state.service
    uploads = await receive_uploads(request)
    request.state.images = len(uploads)
    model, rows = await service.predict(uploads, top=top)
    return JSONResponse({"model": model.digest, "images": rows})


@router.get("/v1/model", response_model=ModelInfo, responses={401: ERROR_RESPONSES[401]})
async def model(request: Request) -> Response:
    """Describe the loaded model; changes after a reload."""
    used = request.app.state.service.model
    description = used.description
    return JSONResponse(
        {
            "model": used.digest,
            "task": description.task,
            "architecture": description.architecture,
            "runtime": used.runtime,
            "class_names": description.class_names,
            "preprocessing": description.preprocessing.to_dict(),
        }
    )


@router.get("/healthz", response_model=HealthResponse)
async def healthz() -> Response:
    """Liveness probe."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    response_model=HealthResponse,
    responses={503: {"model": HealthResponse, "description": "Shutting down."}},
)
async def readyz(request: Request) -> Response:
    """Readiness probe: 503 once the service is draining."""
    if request.app.state.service.draining:
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 401: ERROR_RESPONSES[401]},
)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def receive_uploads(request: Request) -> list[Upload]:
    """Read the image files from a request's body; for every route that takes images.

    Raises:
        RequestError: 429 if the service is at capacity, before the body is read; 413 if the body is too large; and
            the errors of ``uploads.read_uploads``.
    """
    service: Service = request.app.state.service
    service.admit(request.headers.get("content-length"))
    return await service.read(request.headers.get("content-type", ""), await request.body())


async def _root() -> Response:
    return JSONResponse({"name": "ghostnets", "version": __version__, "api": "/openapi.json", "predict": "/v1/predict"})


async def _handle_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": str(error)}, error.status, error.headers)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        methods = set(headers["Allow"].split(", "))
        if "GET" in methods:  # the middleware serves HEAD wherever GET is served
            methods.add("HEAD")
        headers["Allow"] = ", ".join(sorted(methods))
    return JSONResponse({"error": f"{error.detail}; see /openapi.json for all routes."}, error.status_code, headers)


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    reasons = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    return JSONResponse({"error": f"{reasons}; see /openapi.json for the parameters."}, 422)
