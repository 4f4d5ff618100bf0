"""What the HTML pages share: their template environment, and the views that their common parts show."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from torch import Tensor

from ghostnets.errors import require
from ghostnets.explain.anatomy import GhostMaps
from ghostnets.explain.figures import heat_png, map_png, pixels_png
from ghostnets.explain.savings import Savings

__all__ = ["GhostLayerView", "max_stage_macs", "render", "sample_evenly", "select_ghost_layers"]

PAIRS_SHOWN = 10  # intrinsic map and ghosts, for each layer
LAYERS_SHOWN = 4
VISIBLE = 7  # pixels: smaller maps show nothing

T = TypeVar("T")


@dataclass(frozen=True)
class GhostPairView:
    """An intrinsic map (H, W), its ghosts (s - 1, H, W), and the cosine of each with it."""

    intrinsic: Tensor
    ghosts: Tensor
    similarity: Sequence[float]


@dataclass(frozen=True)
class GhostLayerView:
    """Some pairs of one Ghost module, for the part ``ghost_pairs``."""

    name: str
    size: str
    count: int
    ghosts_each: int
    pairs: Sequence[GhostPairView]


def render(template: str, **values: Any) -> str:
    """Fills a template of this room.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="explain")
    room = files("ghostnets.explain")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: room.joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["heat_png"] = heat_png
    environment.filters["map_png"] = map_png
    environment.filters["pixels_png"] = pixels_png
    environment.filters["millions"] = lambda value: f"{value / 1e6:,.2f}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    return str(environment.get_template(template).render(**values))


def select_ghost_layers(maps: list[GhostMaps]) -> list[GhostLayerView]:
    """Layers sampled over the depth, of each the pairs whose intrinsic map varies most: a constant one is blank."""
    layers = []
    for layer in sample_evenly([m for m in maps if m.intrinsic.shape[-1] >= VISIBLE] or maps, LAYERS_SHOWN):
        order = layer.intrinsic.flatten(1).var(1).argsort(descending=True)[:PAIRS_SHOWN].tolist()
        similarity = layer.similarity()
        layers.append(
            GhostLayerView(
                name=layer.layer,
                size=f"{layer.intrinsic.shape[1]} x {layer.intrinsic.shape[2]}",
                count=len(layer.intrinsic),
                ghosts_each=layer.ghosts.shape[1],
                pairs=[GhostPairView(layer.intrinsic[i], layer.ghosts[i], similarity[i].tolist()) for i in order],
            )
        )
    return layers


def sample_evenly(items: Sequence[T], most: int) -> list[T]:
    """``most`` of the items at equal distances, the first and the last among them; all where there are fewer."""
    step = (len(items) - 1) / max(1, most - 1)
    return [items[i] for i in sorted({round(k * step) for k in range(most)})] if items else []


def max_stage_macs(savings: Savings) -> int:
    """Multiply-adds of the costliest stage of either network: the full length of a bar."""
    return max(stage.plain_macs or stage.macs for stage in savings.stages)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
