"""Request bodies of the Open Inference Protocol, version 2."""

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["InferInput", "InferOutput", "InferRequest"]


class InferInput(BaseModel):
    """Input tensor, whose values are in ``data`` or in the binary part of the body."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferOutput(BaseModel):
    """Requested output tensor."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """JSON part of an inference request."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InferInput] = Field(min_length=1)
    outputs: list[InferOutput] | None = None
