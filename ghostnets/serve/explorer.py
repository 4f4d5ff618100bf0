"""The ghost explorer's endpoints: maps and ghosts of an image, the answer without some ghosts, cost by layer.

No state is kept for a client: each question brings its image. All work on the network is done by one thread of its
own, off the event loop; so the hooks that watch it and switch its ghosts off never meet those of another question.
"""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from fastapi import APIRouter, HTTPException
from PIL import Image
from pydantic import Base64Bytes, BaseModel, Field
from torch import Tensor

from ghostnets.checkpoints import Checkpoint
from ghostnets.data import Preprocessing
from ghostnets.errors import UnknownNameError
from ghostnets.explain import cheap_kernels, cost_by_layer, ghost_count, ghost_maps, ghost_modules, ghosts_off
from ghostnets.measure import count, processor_name

__all__ = ["Explorer", "explorer_router"]

WAITING = 8  # questions at one time, the one that is being answered among them
RUNS = 10  # for the time by layer

T = TypeVar("T")


class GhostLayer(BaseModel):
    """A Ghost module: how many maps it makes by convolution, how many from those, and their size in pixels."""

    name: str
    intrinsic: int
    ghosts: int
    height: int
    width: int


class Outline(BaseModel):
    """The network; without layers ``absent`` says why there is nothing to explore."""

    architecture: str
    layers: list[GhostLayer]
    absent: str | None = None


class MapsQuestion(BaseModel):
    """An image file in base64, and the name of a Ghost module."""

    image: Base64Bytes
    layer: str


class Ghost(BaseModel):
    """One ghost: its number in the module, cosine with its intrinsic map (none where one is constant), cheap kernel."""

    number: int
    similarity: float | None
    kind: str
    kernel: list[float]


class Pair(BaseModel):
    """An intrinsic map by its number, with the ghosts made from it."""

    intrinsic: int
    ghosts: list[Ghost]


class Maps(BaseModel):
    """The maps of one module, those whose intrinsic map varies most first.

    ``pixels``: base64 of uint8, row by row, of each pair the intrinsic map and then its ghosts; 0 is the lowest and 255
    the highest value of each map.
    """

    layer: str
    height: int
    width: int
    pairs: list[Pair]
    pixels: str


class WithoutQuestion(BaseModel):
    """An image file in base64, and what is off.

    ``off``: name of a Ghost module -> the numbers of its ghosts, null for all. ``fill``: what stands in their place.
    """

    image: Base64Bytes
    off: Annotated[dict[str, list[int] | None], Field(max_length=1000)]
    fill: Literal["zeros", "copies"] = "zeros"
    top: Annotated[int, Field(ge=1, le=100)] = 5


class Compared(BaseModel):
    """The probability of a class with every ghost on, and with those ghosts off."""

    name: str
    before: float
    after: float


class Without(BaseModel):
    """The most probable classes before and after, by their probability before."""

    answers: list[Compared]


class LayerCost(BaseModel):
    """A Ghost module, or the rest of a block: multiply-adds for one image, and the measured time in seconds."""

    name: str
    title: str
    macs: int
    seconds: float


class Cost(BaseModel):
    """By layer, in the network's order; ``note`` says what was measured."""

    note: str
    layers: list[LayerCost]


class Explorer:
    """The network of a checkpoint, to be looked into by one thread at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.architecture, self.class_names = checkpoint.architecture, checkpoint.class_names
        self.preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        self.model = checkpoint.build().to(memory_format=torch.channels_last)
        self.outline = self._outline()
        self.kernels = {kernels.layer: kernels for kernels in cheap_kernels(self.model)}

    def _outline(self) -> Outline:
        size = self.preprocessing.image_size
        shapes = count(self.model, (self.preprocessing.channels, size, size)).output_shapes
        layers = []
        for name, module in ghost_modules(self.model).items():
            _, height, width = shapes[name]
            ghosts = ghost_count(module)
            intrinsic = module.out_channels - ghosts
            layers.append(GhostLayer(name=name, intrinsic=intrinsic, ghosts=ghosts, height=height, width=width))
        absent = None if layers else f"{self.architecture} has no Ghost modules, so there are no ghosts to explore."
        return Outline(architecture=self.architecture, layers=layers, absent=absent)

    @cached_property
    def cost(self) -> Cost:
        """Measured once."""
        channels, size = self.preprocessing.channels, self.preprocessing.image_size
        x = torch.zeros(1, channels, size, size).contiguous(memory_format=torch.channels_last)
        layers = []
        for row in cost_by_layer(self.model, x, runs=RUNS):
            has_ghosts = any(layer.name.startswith(f"{row.name}.") for layer in self.outline.layers)
            title = f"rest of {row.name}" if has_ghosts else row.name or "between the modules"
            layers.append(LayerCost(name=row.name, title=title, macs=row.macs, seconds=row.seconds))
        note = (
            f"One image of {channels} x {size} x {size}. Time: median of {RUNS} runs in PyTorch, layer by layer, with"
            f" {torch.get_num_threads()} threads of {processor_name()}, measured once when it was first asked for;"
            " what answers the pictures above may be another, faster runtime."
        )
        return Cost(note=note, layers=layers)

    def maps(self, image: Image.Image, layer: str) -> Maps:
        """Raises UnknownNameError where the network has no such Ghost module."""
        modules = ghost_modules(self.model)
        if layer not in modules:
            raise UnknownNameError("Ghost module with ghosts", layer, modules)
        (found,) = (maps for maps in ghost_maps(self.model, self._input(image)) if maps.layer == layer)
        cheap, each = self.kernels[layer], found.ghosts.shape[1]
        similarity, kinds = found.similarity(), cheap.kinds()
        pairs, shown = [], []
        for i in found.intrinsic.flatten(1).var(1).argsort(descending=True).tolist():
            ghosts = []
            for j in range(min(each, ghost_count(modules[layer]) - i * each)):  # some of the last may be cut off
                cosine, kernel = float(similarity[i, j]), cheap.kernels[i, j].flatten().tolist()
                number = i * each + j
                value = None if cosine != cosine else cosine
                ghosts.append(Ghost(number=number, similarity=value, kind=kinds[number], kernel=kernel))
            pairs.append(Pair(intrinsic=i, ghosts=ghosts))
            shown += [found.intrinsic[i], *found.ghosts[i][: len(ghosts)]]
        pixels = base64.b64encode(_to_bytes(torch.stack(shown))).decode("ascii")
        height, width = found.intrinsic.shape[1:]
        return Maps(layer=layer, height=height, width=width, pairs=pairs, pixels=pixels)

    @torch.inference_mode()
    def without(self, image: Image.Image, question: WithoutQuestion) -> Without:
        """Raises as ``explain.ghosts_off``."""
        x = self._input(image)
        with ghosts_off(self.model, question.off, fill=question.fill):
            after = self.model(x)[0].softmax(0)
        before = self.model(x)[0].softmax(0)
        top = min(question.top, len(before))
        chosen = {*before.topk(top).indices.tolist(), *after.topk(top).indices.tolist()}
        return Without(
            answers=[
                Compared(name=self.class_names[i], before=float(before[i]), after=float(after[i]))
                for i in sorted(chosen, key=lambda i: -float(before[i]))
            ]
        )

    def _input(self, image: Image.Image) -> Tensor:
        pixels = self.preprocessing.center(self.preprocessing.read(image))
        return self.preprocessing.normalize(pixels[None])


def explorer_router(
    explorer: Explorer | None, decode: Callable[[bytes], Image.Image], *, absent: str = ""
) -> APIRouter:
    """The endpoints under ``/v1/explain``.

    Args:
        explorer: None where there is no network in PyTorch to look into.
        decode: Bytes of an image file -> the image; raises ImageError.
        absent: Why there is no explorer, one sentence.
    """
    router = APIRouter(prefix="/v1/explain", tags=["explain"])
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explorer")
    waiting = 0

    async def run(work: Callable[[Explorer], T]) -> T:
        nonlocal waiting
        if explorer is None or explorer.outline.absent:
            raise HTTPException(404, absent or "There are no ghosts to explore.")
        if waiting >= WAITING:
            raise HTTPException(429, "The ghost explorer is busy; ask again in a second.", {"Retry-After": "1"})
        waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, explorer)
        finally:
            waiting -= 1

    @router.get("")
    async def outline() -> Outline:
        """The Ghost modules of the network."""
        if explorer is None:
            return Outline(architecture="", layers=[], absent=absent)
        return explorer.outline

    @router.get("/cost")
    async def cost() -> Cost:
        """Multiply-adds and time by layer; the first question measures them."""
        return await run(lambda explorer: explorer.cost)

    @router.post("/maps")
    async def maps(question: MapsQuestion) -> Maps:
        """Intrinsic maps of one Ghost module for an image, each with its ghosts and their kernels."""
        return await run(lambda explorer: explorer.maps(decode(question.image), question.layer))

    @router.post("/without")
    async def without(question: WithoutQuestion) -> Without:
        """The answer for an image with every ghost on, and with some off."""
        return await run(lambda explorer: explorer.without(decode(question.image), question))

    return router


def _to_bytes(maps: Tensor) -> bytes:
    """float32 (N, H, W) -> uint8, each map from its lowest to its highest value; a constant one is 0."""
    flat = maps.flatten(1)
    low, high = flat.min(1, keepdim=True).values, flat.max(1, keepdim=True).values
    scaled = (flat - low) / torch.where(high > low, high - low, 1)
    return (scaled * 255).round().numpy().astype(np.uint8).tobytes()
