"""Request and response bodies of the ghost explorer, as in the OpenAPI document."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AblationRequest",
    "AblationResponse",
    "ClassChangeInfo",
    "CostResponse",
    "GhostInfo",
    "GhostModuleInfo",
    "GhostModulesResponse",
    "IntrinsicMapInfo",
    "LayerCostInfo",
    "MapsRequest",
    "MapsResponse",
]


class GhostModuleInfo(BaseModel):
    """Size of a Ghost module's output."""

    name: str
    intrinsic: int = Field(description="Number of intrinsic maps, computed by an ordinary convolution.")
    ghosts: int = Field(description="Number of ghost maps, derived from the intrinsic maps.")
    height: int = Field(description="Map height in pixels.")
    width: int


class GhostModulesResponse(BaseModel):
    """All Ghost modules of the network."""

    layers: list[GhostModuleInfo] = Field(description="Ghost modules in network order.")
    absent: str | None = Field(description="Reason why there are none, as one sentence.")


class MapsRequest(BaseModel):
    """An image and the Ghost module to show."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="Image file in base64 (standard or URL-safe), or as a data URI.")
    layer: str = Field(description="Name of a Ghost module.")


class GhostInfo(BaseModel):
    """One ghost map."""

    number: int = Field(description="Index within the module, used to disable it.")
    similarity: float | None = Field(
        description="Cosine similarity to its intrinsic map, both centred; null if one is constant."
    )
    kind: str = Field(description="Effect of its kernel: identity, shift, blur, edge, mixed or nothing.")
    kernel: list[float] = Field(description="Kernel weights in row-major order, batch normalisation folded in.")


class IntrinsicMapInfo(BaseModel):
    """An intrinsic map and the ghosts derived from it."""

    intrinsic: int = Field(description="Index of the map within the module.")
    ghosts: list[GhostInfo]


class MapsResponse(BaseModel):
    """Output maps of a Ghost module for an image."""

    layer: str
    height: int
    width: int
    pairs: list[IntrinsicMapInfo] = Field(description="Intrinsic maps in descending order of their variance.")
    pixels: str = Field(
        description="Base64 of uint8 maps in row-major order: for each pair, the intrinsic map, then its ghosts. Each"
        " map is scaled from its minimum (0) to its maximum (255)."
    )


class AblationRequest(BaseModel):
    """An image and the ghosts to disable."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="Image file in base64 (standard or URL-safe), or as a data URI.")
    off: dict[str, list[int] | None] = Field(
        description="Ghosts to disable: name of a Ghost module to indices of its ghosts, null for all of them."
    )
    fill: Literal["copies", "zeros"] = Field(
        "zeros", description="Replacement for disabled ghosts: copies of their intrinsic maps, or zeros."
    )
    top: int = Field(5, ge=1, le=100, description="Number of most probable classes, before and after.")


class ClassChangeInfo(BaseModel):
    """Probability of a class before and after the ablation."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Class name.")
    before: float = Field(description="Probability with all ghosts enabled.")
    after: float = Field(description="Probability with the given ghosts disabled.")


class AblationResponse(BaseModel):
    """Predictions with and without the given ghosts."""

    answers: list[ClassChangeInfo] = Field(description="Classes in descending order of their probability before.")


class LayerCostInfo(BaseModel):
    """Cost of a Ghost module, or of the layers between Ghost modules."""

    name: str
    title: str = Field(description="Display name; 'rest of BLOCK' for a block's layers outside its Ghost modules.")
    macs: int = Field(description="Multiply-adds per image.")
    seconds: float


class CostResponse(BaseModel):
    """Cost by layer."""

    note: str = Field(description="Measurement conditions.")
    layers: list[LayerCostInfo] = Field(description="Layers in network order.")
