"""The bodies of requests and answers, as the OpenAPI description shows them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Answer", "Error", "ImageAnswer", "ImagesAsJson", "ModelInfo", "Predictions", "Status"]


class ImagesAsJson(BaseModel):
    """Images in JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)
    images: list[str] = Field(min_length=1, description="Image files in standard base64.")


class Answer(BaseModel):
    """One class."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Name of the class.")
    probability: float = Field(ge=0, le=1)


class ImageAnswer(BaseModel):
    """The answer for one image."""

    name: str | None = Field(description="File name, where the request gave one.")
    answers: list[Answer] = Field(description="Most probable classes first; empty where there is an error.")
    error: str | None = Field(description="Why this image has no answer.")


class Predictions(BaseModel):
    """The answers for all images of a request, in its order."""

    model: str = Field(description="SHA-256 of the artefact that answered, its first 12 digits.")
    images: list[ImageAnswer]


class ModelInfo(BaseModel):
    """What answers."""

    model: str = Field(description="SHA-256 of the artefact, its first 12 digits.")
    architecture: str
    runtime: str
    class_names: list[str]
    preprocessing: dict[str, Any]


class Status(BaseModel):
    """Health."""

    status: str


class Error(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="What was got, what was wanted, what to do next.")
