"""Tensors of the Open Inference Protocol, version 2, in JSON and in its binary extension.

Source: the protocol's specification (kserve/open-inference-protocol, rest/inference_rest.yaml) and its extension for
binary tensor data (triton-inference-server/server, docs/protocol/extension_binary_data.md).
"""

import binascii
import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import Pixels
from ghostnets.serve.inference_schemas import InferInput, InferRequest
from ghostnets.serve.json_body import decode_base64, read_json
from ghostnets.serve.request_error import RequestError

__all__ = ["FILES", "PIXELS", "Output", "TensorSpec", "pack_outputs", "read_images", "read_request"]

FILES, PIXELS = "images", "pixels"  # names of the two inputs
LENGTH = struct.Struct("<I")  # length in front of each element of a BYTES tensor


LITTLE_ENDIAN = {"FP32": "<f4", "INT32": "<i4", "UINT8": "u1"}  # numpy types of the binary values
MAX_JSON_VALUES = 4_000_000  # of a tensor in JSON, where a value takes some three to ten bytes


class TensorSpec(NamedTuple):
    """Name, datatype and shape of a tensor, with -1 for a side that the request determines."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Output(NamedTuple):
    """Output tensor of a response: float32, int32, uint8, or an object array of bytes."""

    name: str
    datatype: str
    values: npt.NDArray[Any]
    is_binary: bool


def read_request(body: bytes, json_length: str | None, max_images: int) -> tuple[InferRequest, list[bytes] | Pixels]:
    """Read an inference request.

    Args:
        body: Complete request body: JSON, followed by the values of binary tensors.
        json_length: Header Inference-Header-Content-Length, the length of the JSON; None if the body is only JSON.
        max_images: Maximum number of images.

    Returns:
        The JSON part, and the images: contents of files, or pixels, uint8 (N, H, W, C).

    Raises:
        RequestError: 400 if the body does not follow the protocol, 413 for too many images.
    """
    if json_length is not None and not (json_length.isdecimal() and int(json_length) <= len(body)):
        raise RequestError(
            400,
            f"the header Inference-Header-Content-Length is {json_length[:20]!r}; it must be the length of the JSON at"
            f" the start of the body, which has {len(body)} bytes.",
        )
    end = len(body) if json_length is None else int(json_length)
    try:
        request = read_json(InferRequest, body[:end])
    except ConfigurationError as error:
        raise RequestError(
            400, f"the JSON is not an inference request; send large tensors in binary: {error}"
        ) from error
    if len(request.inputs) != 1:
        names = ", ".join(tensor.name[:40] for tensor in request.inputs[:8])
        raise RequestError(400, f"the request has the inputs {names}; send one, {FILES} or {PIXELS}.")
    return request, read_images(request.inputs[0], body[end:], max_images)


def read_images(tensor: InferInput, binary: bytes, max_images: int) -> list[bytes] | Pixels:
    """Read the images of an input tensor: contents of files (BYTES), or pixels, uint8 (N, H, W, C) (UINT8).

    Raises:
        RequestError: See ``read_request``.
    """
    kinds = {FILES: ("BYTES", 1, "[N]"), PIXELS: ("UINT8", 4, "[N, height, width, channels]")}
    if tensor.name not in kinds:
        raise RequestError(400, f"there is no input {tensor.name[:40]!r}; send {FILES} (BYTES) or {PIXELS} (UINT8).")
    datatype, rank, shape = kinds[tensor.name]
    if tensor.datatype != datatype or len(tensor.shape) != rank or min(tensor.shape) < 1:
        raise RequestError(
            400,
            f"the input {tensor.name} is {tensor.datatype[:20]} of shape {tensor.shape[:8]}; send {datatype} of shape"
            f" {shape}.",
        )
    if tensor.shape[0] > max_images:
        raise RequestError(413, f"the request has {tensor.shape[0]} images, the limit is {max_images}; split it.")
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is None:
        raise RequestError(400, f"the input {tensor.name} has neither data nor binary_data_size; send one of them.")
    if size is not None and size != len(binary):
        raise RequestError(
            400, f"binary_data_size of {tensor.name} is {str(size)[:20]}, but {len(binary)} bytes follow the JSON."
        )
    if tensor.name == FILES:
        return _split_bytes(binary, tensor.shape[0]) if size is not None else _decode_files(tensor)
    return _decode_binary_pixels(binary, tensor) if size is not None else _decode_json_pixels(tensor)


def _split_bytes(binary: bytes, count: int) -> list[bytes]:
    """Split a BYTES tensor, in which each element follows its length."""
    elements: list[bytes] = []
    position = 0
    while position < len(binary) and len(elements) < count:
        if position + LENGTH.size > len(binary):
            break
        (length,) = LENGTH.unpack_from(binary, position)
        position += LENGTH.size + length
        elements.append(binary[position - length : position])
    if len(elements) != count or position != len(binary):
        raise RequestError(
            400, f"the bytes of the input {FILES} are not {count} elements, each preceded by its length in 4 bytes."
        )
    return elements


def _decode_files(tensor: InferInput) -> list[bytes]:
    assert tensor.data is not None
    if len(tensor.data) != tensor.shape[0] or not all(isinstance(text, str) for text in tensor.data):
        raise RequestError(400, f"the data of {FILES} are not {tensor.shape[0]} strings; send each file in base64.")
    try:
        return [decode_base64(text) for text in tensor.data]
    except (ValueError, binascii.Error) as error:
        raise RequestError(400, f"an element of {FILES} is not base64 ({error}); send files in base64.") from error


def _decode_binary_pixels(binary: bytes, tensor: InferInput) -> Pixels:
    count = 1
    for side in tensor.shape:
        count *= side
    if count != len(binary):
        raise RequestError(400, f"{PIXELS} of shape {tensor.shape} has {count} values, got {len(binary)} bytes.")
    return np.frombuffer(binary, np.uint8).reshape(tensor.shape)


def _decode_json_pixels(tensor: InferInput) -> Pixels:
    try:
        values = np.array(tensor.data, dtype=np.float64).reshape(tensor.shape)
    except (ValueError, TypeError) as error:
        raise RequestError(400, f"the data of {PIXELS} are not numbers of shape {tensor.shape}.") from error
    if not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
        raise RequestError(400, f"the data of {PIXELS} are not whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def pack_outputs(response: dict[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """Serialise a response.

    Args:
        response: Fields of the JSON, without the outputs.
        outputs: Output tensors.

    Returns:
        The body, and the length of its JSON part, or None if no binary values follow it.

    Raises:
        RequestError: 413 if an output has too many values for JSON.
    """
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, datatype, values, is_binary in outputs:
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if is_binary:
            parts.append(
                b"".join(LENGTH.pack(len(element)) + element for element in values.ravel())
                if datatype == "BYTES"
                else np.ascontiguousarray(values, LITTLE_ENDIAN[datatype]).tobytes()
            )
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            if values.size > MAX_JSON_VALUES:
                raise RequestError(
                    413,
                    f"the output {name} has {values.size:,} values, and JSON at most {MAX_JSON_VALUES:,}; request it"
                    ' with the parameter "binary_data": true.',
                )
            flat = values.ravel().tolist()
            entry["data"] = [element.decode() for element in flat] if datatype == "BYTES" else flat
        described.append(entry)
    text = json.dumps({**response, "outputs": described}).encode()
    return text + b"".join(parts), len(text) if parts else None
