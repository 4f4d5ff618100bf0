"""Request and response bodies of the prediction routes, as in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ClassProbabilityInfo",
    "ClassShareInfo",
    "ErrorResponse",
    "HealthResponse",
    "ImageMaskInfo",
    "ImageObjectsInfo",
    "ImagePredictionInfo",
    "ModelInfo",
    "ObjectInfo",
    "PredictRequest",
    "PredictResponse",
]


class PredictRequest(BaseModel):
    """Images as base64 in JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)
    images: list[str] = Field(min_length=1, description="Image files in base64, standard or URL-safe, or as data URIs.")


class ClassProbabilityInfo(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Class name.")
    probability: float = Field(ge=0, le=1)


class ImagePredictionInfo(BaseModel):
    """Predictions for one image."""

    name: str | None = Field(description="File name, if the request contains one.")
    answer: str | None = Field(
        default=None,
        description='With --threshold: the most probable class if its probability reaches it, else "none of these", or'
        " null on error. Absent without it. For a multi-label network: all labels, also without --threshold.",
    )
    labels: list[str] | None = Field(
        default=None,
        description="For a multi-label network: all classes whose probability reaches --threshold (0.5), or null on"
        " error. Absent for other networks.",
    )
    answers: list[ClassProbabilityInfo] = Field(
        description="Most probable classes in descending order; empty on error."
    )
    error: str | None = Field(description="Reason why this image could not be classified.")


class ObjectInfo(BaseModel):
    """An object in an image."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Class name.")
    score: float = Field(ge=0, le=1)
    box: list[float] = Field(
        min_length=4, max_length=4, description="x_min, y_min, x_max and y_max in pixels of the upright image."
    )


class ImageObjectsInfo(BaseModel):
    """Objects in one image, found by a detector."""

    name: str | None = Field(description="File name, if the request contains one.")
    width: int | None = Field(description="Width of the upright image in pixels; null on error.")
    height: int | None = Field(description="Height of the upright image in pixels; null on error.")
    objects: list[ObjectInfo] = Field(
        description="Objects whose score exceeds --threshold (0.3), in descending order; empty on error."
    )
    error: str | None = Field(description="Reason why this image could not be read.")


class ClassShareInfo(BaseModel):
    """A class and its share of the pixels of an image."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Class name.")
    index: int = Field(description="Value of its pixels in the mask.")
    share: float = Field(ge=0, le=1)
    color: str = Field(description="Color in the palette of the mask, such as #800000.")


class ImageMaskInfo(BaseModel):
    """The class of each pixel of one image, found by a segmentation network."""

    name: str | None = Field(description="File name, if the request contains one.")
    width: int | None = Field(description="Width of the upright image in pixels; null on error.")
    height: int | None = Field(description="Height of the upright image in pixels; null on error.")
    mask: str | None = Field(description="PNG file of the class indices, with a palette, in base64; null on error.")
    classes: list[ClassShareInfo] = Field(description="Classes that occur, the largest first; empty on error.")
    error: str | None = Field(description="Reason why this image could not be read.")


class PredictResponse(BaseModel):
    """Predictions for all images of a request, in the same order: classes, or objects if the model is a detector, or
    masks if it is a segmentation network.
    """

    model: str = Field(description="First 12 hex digits of the SHA-256 of the artefact used.")
    images: list[ImagePredictionInfo] | list[ImageObjectsInfo] | list[ImageMaskInfo]


class ModelInfo(BaseModel):
    """The loaded model."""

    model: str = Field(description="First 12 hex digits of the artefact's SHA-256.")
    task: str = Field(description='"classify", "detect" for a detector, or "segment".')
    architecture: str
    runtime: str
    class_names: list[str]
    preprocessing: dict[str, Any]


class HealthResponse(BaseModel):
    """Result of a probe."""

    status: str


class ErrorResponse(BaseModel):
    """Reason why the request failed."""

    error: str = Field(description="What was received, what was expected, and what to do next.")
