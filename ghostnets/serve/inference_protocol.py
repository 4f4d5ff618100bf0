"""Routes of the Open Inference Protocol, version 2 (KServe, Triton), in addition to the service's own API.

Inputs are image files, read as in ``/v1/predict``, or pixels. The output of a classifier is the probability of each
class, or with the parameter ``classification`` the most probable classes; a detector has boxes, scores and labels, a
segmentation network the class of each pixel.
"""

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse

from ghostnets import __version__
from ghostnets.serve.inference_outputs import PROBABILITIES, list_outputs, make_tensors
from ghostnets.serve.inference_schemas import InferOutput, InferRequest
from ghostnets.serve.inference_tensors import FILES, PIXELS, Output, TensorSpec, pack_outputs, read_request
from ghostnets.serve.model import ServedModel
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.service import Service

__all__ = ["router"]

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
    channels, num_classes = served.description.preprocessing.channels, len(served.description.class_names)
    return JSONResponse(
        {
            "name": _name(served),
            "versions": [served.digest],
            "platform": served.runtime,
            "inputs": [
                {"name": FILES, "datatype": "BYTES", "shape": [-1]},
                {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, channels]},
            ],
            "outputs": [spec._asdict() for spec in list_outputs(served.task, num_classes)],
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
    """Run the model on images: the input is JSON, or JSON followed by binary tensors."""
    service: Service = request.app.state.service
    served = _find_model(request, name, version)
    service.admit(request.headers.get("content-length"))
    infer_request, images = await service.in_parser(
        read_request, await request.body(), json_length, service.settings.max_images
    )
    _choose_outputs(infer_request, served)  # a wrong name is told before the images are computed
    request.state.images = len(images)
    served, results = await service.run_all(images)  # of another model, if it was replaced meanwhile
    body, length = await service.in_parser(_answer, served, results, infer_request)
    if length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={LENGTH_HEADER: str(length)}, media_type="application/octet-stream")


def _choose_outputs(request: InferRequest, served: ServedModel) -> list[tuple[InferOutput, TensorSpec]]:
    """Return the requested outputs, all without a request; raises RequestError for one that the model does not have."""
    specs = {spec.name: spec for spec in list_outputs(served.task, len(served.description.class_names))}
    outputs = [InferOutput(name=each) for each in specs] if request.outputs is None else request.outputs
    for output in outputs:
        if output.name not in specs:
            raise RequestError(400, f"there is no output {output.name[:40]!r}; the model has {', '.join(specs)}.")
    return [(output, specs[output.name]) for output in outputs]


def _answer(served: ServedModel, results: list[Any], request: InferRequest) -> tuple[bytes, int | None]:
    """Return the body with the requested outputs, as ``pack_outputs``."""
    names = served.description.class_names
    tensors = make_tensors(served.task, results, len(names))
    packed = [
        _make_output(output, request, tensors[spec.name], spec.datatype, names)
        for output, spec in _choose_outputs(request, served)
    ]
    response = {"model_name": _name(served), "model_version": served.digest}
    if request.id is not None:
        response["id"] = request.id
    return pack_outputs(response, packed)


def _make_output(
    output: InferOutput, request: InferRequest, values: npt.NDArray[Any], datatype: str, names: tuple[str, ...]
) -> Output:
    """Return a requested output: a tensor, or of probabilities (N, classes) the most probable classes as texts."""
    is_binary = bool(output.parameters.get("binary_data", request.parameters.get("binary_data_output", False)))
    count: Any = output.parameters.get("classification", 0)
    if count == 0:
        return Output(output.name, datatype, values, is_binary)
    if output.name != PROBABILITIES:
        raise RequestError(400, f"the parameter classification is for {PROBABILITIES}, not {output.name}; omit it.")
    if type(count) is not int or count < 0:
        raise RequestError(
            400, f"the parameter classification is {str(count)[:20]}; it must be the number of classes to return."
        )
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    texts = [[f"{row[i]:f}:{i}:{names[i]}".encode() for i in best] for row, best in zip(values, order, strict=True)]
    classes = np.empty(order.shape, object)
    classes[:] = texts
    return Output(output.name, "BYTES", classes, is_binary)


def _find_model(request: Request, name: str, version: str | None) -> ServedModel:
    served: ServedModel = request.app.state.service.model
    if name != _name(served):
        raise RequestError(404, f"there is no model {name[:100]!r}; the service has {_name(served)!r}.")
    if version is not None and version != served.digest:
        raise RequestError(404, f"there is no version {version[:40]!r} of {name}; the service has {served.digest}.")
    return served


def _name(served: ServedModel) -> str:
    return served.path.stem
