"""Routes of the Open Inference Protocol, version 2 (KServe, Triton), in addition to the service's own API.

Inputs are image files, read as in ``/v1/predict``, or pixels; the output is the probability of each class, or with the
parameter ``classification`` the most probable classes.
"""

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse

from ghostnets import __version__
from ghostnets.serve.inference_schemas import InferOutput, InferRequest
from ghostnets.serve.inference_tensors import FILES, PIXELS, Output, pack_outputs, read_request
from ghostnets.serve.model import ServedModel
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.service import Service

__all__ = ["router"]

OUTPUT = "probabilities"
LENGTH_HEADER = "inference-header-content-length"

Name = Annotated[str, Path(description="Name of the artefact's file without suffix.")]
Version = Annotated[str, Path(description="First 12 hex digits of the SHA-256 of the artefact.")]

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


@router.get("")
async def server() -> Response:
    """Describe the server."""
    return JSONResponse(
        {"name": "ghostnets", "version": __version__, "extensions": ["binary_tensor_data", "classification"]}
    )


@router.get("/health/live")
async def live() -> Response:
    """Liveness probe."""
    return JSONResponse({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Readiness probe: 503 while the service is draining."""
    is_ready = not request.app.state.service.draining
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: Name, version: Version | None = None) -> Response:
    """Readiness probe of the model."""
    served = _find_model(request, name, version)
    is_ready = not request.app.state.service.draining
    return JSONResponse({"name": _name(served), "ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(request: Request, name: Name, version: Version | None = None) -> Response:
    """Describe the model and its tensors; a request passes one of the inputs."""
    served = _find_model(request, name, version)
    channels = served.description.preprocessing.channels
    return JSONResponse(
        {
            "name": _name(served),
            "versions": [served.digest],
            "platform": served.runtime,
            "inputs": [
                {"name": FILES, "datatype": "BYTES", "shape": [-1]},
                {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, channels]},
            ],
            "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(served.description.class_names)]}],
        }
    )


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(
    request: Request,
    name: Name,
    version: Version | None = None,
    json_length: Annotated[str | None, Header(alias=LENGTH_HEADER, description="Length of the JSON.")] = None,
) -> Response:
    """Classify images: the input is JSON, or JSON followed by binary tensors."""
    service: Service = request.app.state.service
    _find_model(request, name, version)
    service.admit(request.headers.get("content-length"))
    infer_request, images = await service.in_parser(
        read_request, await request.body(), json_length, service.settings.max_images
    )
    outputs = [InferOutput(name=OUTPUT)] if infer_request.outputs is None else infer_request.outputs
    for output in outputs:
        if output.name != OUTPUT:
            raise RequestError(400, f"there is no output {output.name[:40]!r}; the model has {OUTPUT}.")
    request.state.images = len(images)
    served, rankings = await service.rank_all(images)
    names = served.description.class_names
    probabilities = np.zeros((len(images), len(names)), np.float32)
    for row, ranking in zip(probabilities, rankings, strict=True):
        row[ranking.classes] = ranking.probabilities
    packed = [_make_output(output, infer_request, probabilities, names) for output in outputs]
    response = {"model_name": _name(served), "model_version": served.digest}
    if infer_request.id is not None:
        response["id"] = infer_request.id
    body, length = pack_outputs(response, packed)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")


def _make_output(
    output: InferOutput, request: InferRequest, probabilities: npt.NDArray[np.float32], names: tuple[str, ...]
) -> Output:
    """Return a requested output: probabilities (N, classes), or the most probable classes as texts (N, k)."""
    is_binary = bool(output.parameters.get("binary_data", request.parameters.get("binary_data_output", False)))
    count: Any = output.parameters.get("classification", 0)
    if count == 0:
        return Output(output.name, "FP32", probabilities, is_binary)
    if type(count) is not int or count < 0:
        raise RequestError(
            400, f"the parameter classification is {str(count)[:20]}; it must be the number of classes to return."
        )
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    texts = [
        [f"{row[i]:f}:{i}:{names[i]}".encode() for i in best] for row, best in zip(probabilities, order, strict=True)
    ]
    values = np.empty(order.shape, object)
    values[:] = texts
    return Output(output.name, "BYTES", values, is_binary)


def _find_model(request: Request, name: str, version: str | None) -> ServedModel:
    served: ServedModel = request.app.state.service.model
    if served.is_detector:
        raise RequestError(
            400,
            "the model is a detector, and the tensors of this protocol hold probabilities of classes; send images to"
            " /v1/predict, which answers with boxes.",
        )
    if name != _name(served):
        raise RequestError(404, f"there is no model {name[:100]!r}; the service has {_name(served)!r}.")
    if version is not None and version != served.digest:
        raise RequestError(404, f"there is no version {version[:40]!r} of {name}; the service has {served.digest}.")
    return served


def _name(served: ServedModel) -> str:
    return served.path.stem
