"""Questions to the ghost explorer and its answers, as the OpenAPI description shows them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Compared", "Cost", "Ghost", "GhostLayer", "LayerCost", "Maps", "MapsQuestion", "Outline", "Pair", "Without",
           "WithoutQuestion"]  # fmt: skip


class GhostLayer(BaseModel):
    """A Ghost module."""

    name: str
    intrinsic: int = Field(description="Maps made by an ordinary convolution.")
    ghosts: int = Field(description="Maps made from those.")
    height: int = Field(description="Of a map, in pixels.")
    width: int


class Outline(BaseModel):
    """What there is to explore."""

    layers: list[GhostLayer] = Field(description="The Ghost modules in the network's order.")
    absent: str | None = Field(description="Why there are none, one sentence.")


class MapsQuestion(BaseModel):
    """An image, and a layer to see."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="An image file in standard base64.")
    layer: str = Field(description="Name of a Ghost module.")


class Ghost(BaseModel):
    """One ghost."""

    number: int = Field(description="Within the module; what is switched off by.")
    similarity: float | None = Field(
        description="Cosine with its intrinsic map, both centred; null if one is constant."
    )
    kind: str = Field(description="What its kernel does: identity, shift, blur, edge, mixed or nothing.")
    kernel: list[float] = Field(description="Weights, normalisation folded in, row by row.")


class Pair(BaseModel):
    """An intrinsic map with its ghosts."""

    intrinsic: int = Field(description="Number of the map within the module.")
    ghosts: list[Ghost]


class Maps(BaseModel):
    """What one Ghost module makes of an image."""

    layer: str
    height: int
    width: int
    pairs: list[Pair] = Field(description="Those whose intrinsic map varies most come first.")
    pixels: str = Field(
        description="Base64 of bytes, row by row: of each pair the intrinsic map, then its ghosts. 0 is the lowest"
        " value of a map, 255 its highest."
    )


class WithoutQuestion(BaseModel):
    """An image, and the ghosts that are off."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="An image file in standard base64.")
    off: dict[str, list[int] | None] = Field(description="Name of a Ghost module: numbers of its ghosts, null for all.")
    fill: Literal["copies", "zeros"] = Field("zeros", description="In their place: their intrinsic maps, or zeros.")
    top: int = Field(5, ge=1, le=100, description="So many most probable classes, of either answer.")


class Compared(BaseModel):
    """The probability of one class."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class", description="Name of the class.")
    before: float = Field(description="With every ghost on.")
    after: float = Field(description="With those ghosts off.")


class Without(BaseModel):
    """Two answers for one image."""

    answers: list[Compared] = Field(description="By their probability before.")


class LayerCost(BaseModel):
    """A Ghost module, or what stands beside them."""

    name: str
    title: str = Field(description="The name for a person: 'rest of' a block for what is no Ghost module in it.")
    macs: int = Field(description="Multiply-adds for one image.")
    seconds: float


class Cost(BaseModel):
    """What the network costs."""

    note: str = Field(description="What was measured, and on what.")
    layers: list[LayerCost] = Field(description="In the network's order.")
