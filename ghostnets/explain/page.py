"""Shared by the HTML pages: the template environment, and the view data of the common parts."""

import base64
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from torch import Tensor

from ghostnets.errors import require
from ghostnets.explain.anatomy import GhostMaps
from ghostnets.explain.figures import heat_png, map_png, pixels_png
from ghostnets.explain.savings import Savings

__all__ = [
    "GhostLayerView",
    "environment",
    "link_to_file",
    "max_stage_macs",
    "render",
    "sample_evenly",
    "select_ghost_layers",
]

MAX_PAIRS = 10  # intrinsic maps with their ghosts, per layer
MAX_LAYERS = 4
PRINTED_ROWS = 40  # of a long table on paper, where there is no search: a thousand classes would fill a hundred pages
PRINTED_GROUPS = 12  # of the groups of pictures in a section, on paper
MIN_MAP_SIDE = 7  # pixels; smaller maps are not recognisable

T = TypeVar("T")


@dataclass(frozen=True)
class GhostPairView:
    """An intrinsic map (H, W), its ghosts (s - 1, H, W), and the cosine of each with it."""

    intrinsic: Tensor
    ghosts: Tensor
    similarity: Sequence[float]


@dataclass(frozen=True)
class GhostLayerView:
    """Sample pairs of one Ghost module, for the macro ``ghost_pairs``."""

    name: str
    size: str
    count: int
    ghosts_each: int
    pairs: Sequence[GhostPairView]


def render(template: str, **values: Any) -> str:
    """Render a template of this package.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    return str(environment().get_template(template).render(**values))


@functools.cache
def environment() -> Any:
    """Return the environment of all pages: compiling a template takes longer than rendering a small page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="explain")
    templates = files("ghostnets.explain")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: templates.joinpath(name).read_text(encoding="utf-8")),
    )
    environment.globals.update(printed_rows=PRINTED_ROWS, printed_groups=PRINTED_GROUPS)
    environment.filters["data_uri"] = _data_uri
    environment.filters["heat_png"] = heat_png
    environment.filters["map_png"] = map_png
    environment.filters["pixels_png"] = pixels_png
    environment.filters["millions"] = lambda value: f"{value / 1e6:,.2f}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    return environment


def select_ghost_layers(maps: list[GhostMaps]) -> list[GhostLayerView]:
    """Sample layers evenly over the depth, each with the pairs whose intrinsic maps have the highest variance."""
    layers = []
    for layer in sample_evenly([m for m in maps if m.intrinsic.shape[-1] >= MIN_MAP_SIDE] or maps, MAX_LAYERS):
        order = layer.intrinsic.flatten(1).var(1).argsort(descending=True)[:MAX_PAIRS].tolist()
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


def sample_evenly(items: Sequence[T], limit: int) -> list[T]:
    """Return up to ``limit`` evenly spaced items, including the first and the last."""
    step = (len(items) - 1) / max(1, limit - 1)
    return [items[i] for i in sorted({round(k * step) for k in range(limit)})] if items else []


def max_stage_macs(savings: Savings) -> int:
    """Return the multiply-adds of the most expensive stage of either network: the full length of a bar."""
    return max(stage.plain_macs or stage.macs for stage in savings.stages)


def link_to_file(path: str, folder: Path) -> str | None:
    """URL of a file, from a page in ``folder`` relative if possible; None if there is no file, as in a tar."""
    if not Path(path).is_file():
        return None
    try:
        return quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
    except ValueError:  # on another drive of Windows
        return Path(path).resolve().as_uri()


def _data_uri(content: bytes) -> str:
    """The URI of a PNG or JPEG file."""
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
