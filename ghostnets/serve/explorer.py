"""The network of a checkpoint, to be looked into: maps and ghosts, the answer without some of them, cost by layer."""

import base64
import math
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ghostnets.checkpoints import Checkpoint
from ghostnets.compress import reparameterize
from ghostnets.errors import UnknownNameError
from ghostnets.explain import (
    collect_cheap_kernels,
    collect_ghost_maps,
    count_ghosts,
    disable_ghosts,
    find_ghost_modules,
    measure_cost_by_layer,
)
from ghostnets.measure import count, processor_name
from ghostnets.serve.explorer_schemas import (
    Compared,
    Cost,
    Ghost,
    GhostLayer,
    LayerCost,
    Maps,
    Outline,
    Pair,
    Without,
)

__all__ = ["Explorer"]

RUNS = 10  # for the time by layer

Pixels = npt.NDArray[np.uint8]


class Explorer:
    """Answers in torch, of a network of its own; by hooks, so only one thread may use it at a time.

    Images are uint8 (S, S, C), resized and cut as the checkpoint's preprocessing says.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.architecture, self.class_names = checkpoint.architecture, checkpoint.class_names
        self.preprocessing = checkpoint.preprocessing
        self.model = reparameterize(checkpoint.build()).to(memory_format=torch.channels_last)
        self.modules = find_ghost_modules(self.model)
        self.kernels = {kernels.layer: kernels for kernels in collect_cheap_kernels(self.model)}

    @cached_property
    def outline(self) -> Outline:
        """Its Ghost modules."""
        size = self.preprocessing.image_size
        shapes = count(self.model, (self.preprocessing.channels, size, size)).output_shapes
        layers = []
        for name, module in self.modules.items():
            _, height, width = shapes[name]
            ghosts = count_ghosts(module)
            intrinsic = module.out_channels - ghosts
            layers.append(GhostLayer(name=name, intrinsic=intrinsic, ghosts=ghosts, height=height, width=width))
        absent = None if layers else f"{self.architecture} has no Ghost modules, so there are no ghosts to explore."
        return Outline(layers=layers, absent=absent)

    @cached_property
    def cost(self) -> Cost:
        """By layer; measured once."""
        channels, size = self.preprocessing.channels, self.preprocessing.image_size
        x = torch.zeros(1, channels, size, size).contiguous(memory_format=torch.channels_last)
        layers = []
        for row in measure_cost_by_layer(self.model, x, runs=RUNS):
            is_block = any(name.startswith(f"{row.name}.") for name in self.modules)
            title = f"rest of {row.name}" if is_block else row.name or "between the modules"
            layers.append(LayerCost(name=row.name, title=title, macs=row.macs, seconds=row.seconds))
        note = (
            f"One image of {channels} x {size} x {size}. Time: median of {RUNS} runs in torch {torch.__version__},"
            f" layer by layer, {torch.get_num_threads()} threads, {processor_name()}; measured once, when it was first"
            " asked for. The answers above come from the service's own runtime, whose times are others."
        )
        return Cost(note=note, layers=layers)

    def maps(self, image: Pixels, layer: str) -> Maps:
        """What one Ghost module makes of an image.

        Raises:
            UnknownNameError: The network has no such Ghost module.
        """
        if layer not in self.modules:
            raise UnknownNameError("Ghost module with ghosts", layer, self.modules)
        (found,) = (maps for maps in collect_ghost_maps(self.model, self._input(image)) if maps.layer == layer)
        similarity, kernels, kinds = found.similarity(), self.kernels[layer].kernels, self.kernels[layer].kinds()
        number, each = count_ghosts(self.modules[layer]), found.ghosts.shape[1]
        pairs: list[Pair] = []
        shown: list[Tensor] = []
        for i in found.intrinsic.flatten(1).var(1, correction=0).argsort(descending=True).tolist():
            here = range(i * each, min(number, (i + 1) * each))  # the last of the module may be cut off
            ghosts = []
            for ghost in here:
                cosine, kernel = float(similarity[i, ghost - here.start]), kernels[i, ghost - here.start]
                known = None if math.isnan(cosine) else cosine
                ghosts.append(
                    Ghost(number=ghost, similarity=known, kind=kinds[ghost], kernel=kernel.flatten().tolist())
                )
            pairs.append(Pair(intrinsic=i, ghosts=ghosts))
            shown += [found.intrinsic[i], *found.ghosts[i, : len(here)]]
        _, height, width = found.intrinsic.shape
        pixels = base64.b64encode(_to_bytes(torch.stack(shown))).decode("ascii")
        return Maps(layer=layer, height=height, width=width, pairs=pairs, pixels=pixels)

    @torch.inference_mode()
    def without(self, image: Pixels, off: dict[str, list[int] | None], *, fill: str, top: int) -> Without:
        """The most probable classes of an image with every ghost on, and with some off.

        Raises:
            UnknownNameError, ConfigurationError: As ``explain.disable_ghosts``.
        """
        x = self._input(image)
        with disable_ghosts(self.model, off, fill=fill):
            after = self.model(x)[0].softmax(0)
        before = self.model(x)[0].softmax(0)
        best = [scores.topk(min(top, len(scores))).indices.tolist() for scores in (before, after)]
        return Without(
            answers=[
                Compared.model_validate(
                    {"class": self.class_names[i], "before": float(before[i]), "after": float(after[i])}
                )
                for i in sorted({*best[0], *best[1]}, key=lambda i: -float(before[i]))
            ]
        )

    def _input(self, image: Pixels) -> Tensor:
        return self.preprocessing.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])


def _to_bytes(maps: Tensor) -> bytes:
    """float32 (N, H, W) -> uint8, each map from its lowest to its highest value; a constant one is 0."""
    flat = maps.flatten(1)
    low, high = flat.min(1, keepdim=True).values, flat.max(1, keepdim=True).values
    scaled = (flat - low) / torch.where(high > low, high - low, 1)
    return (scaled * 255).round().numpy().astype(np.uint8).tobytes()
