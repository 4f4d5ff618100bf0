"""Ghost explorer: feature maps, ablation of ghosts, and cost by layer of a checkpoint's network."""

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
    AblationResponse,
    ClassChangeInfo,
    CostResponse,
    GhostInfo,
    GhostModuleInfo,
    GhostModulesResponse,
    IntrinsicMapInfo,
    LayerCostInfo,
    MapsResponse,
)

__all__ = ["Explorer"]

TIMED_RUNS = 10

Pixels = npt.NDArray[np.uint8]


class Explorer:
    """Inspects its own copy of the network in PyTorch with forward hooks, so only one thread may use it at a time.

    Images are uint8 (S, S, C), resized and cropped by the checkpoint's preprocessing.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.architecture, self.class_names = checkpoint.architecture, checkpoint.class_names
        self.preprocessing = checkpoint.preprocessing
        self.temperature, self.multi_label = checkpoint.temperature or 1.0, checkpoint.multi_label
        self.model = reparameterize(checkpoint.build()).to(memory_format=torch.channels_last)
        self.modules = find_ghost_modules(self.model)
        self.kernels = {kernels.layer: kernels for kernels in collect_cheap_kernels(self.model)}

    @cached_property
    def module_info(self) -> GhostModulesResponse:
        """Ghost modules of the network, with the size of their maps."""
        size = self.preprocessing.image_size
        shapes = count(self.model, (self.preprocessing.channels, size, size)).output_shapes
        layers = []
        for name, module in self.modules.items():
            _, height, width = shapes[name]
            ghosts = count_ghosts(module)
            intrinsic = module.out_channels - ghosts
            layers.append(GhostModuleInfo(name=name, intrinsic=intrinsic, ghosts=ghosts, height=height, width=width))
        absent = None if layers else f"{self.architecture} has no Ghost modules, so there are no ghosts to explore."
        return GhostModulesResponse(layers=layers, absent=absent)

    @cached_property
    def cost(self) -> CostResponse:
        """Cost by layer, measured once."""
        channels, size = self.preprocessing.channels, self.preprocessing.image_size
        x = torch.zeros(1, channels, size, size).contiguous(memory_format=torch.channels_last)
        layers = []
        for row in measure_cost_by_layer(self.model, x, runs=TIMED_RUNS):
            is_block = any(name.startswith(f"{row.name}.") for name in self.modules)
            title = f"rest of {row.name}" if is_block else row.name or "between the modules"
            layers.append(LayerCostInfo(name=row.name, title=title, macs=row.macs, seconds=row.seconds))
        note = (
            f"One {channels} x {size} x {size} image. Time: median of {TIMED_RUNS} runs in torch {torch.__version__},"
            f" layer by layer, {torch.get_num_threads()} threads, {processor_name()}, measured once at the first"
            " request. Predictions run in the service's own runtime, at other speeds."
        )
        return CostResponse(note=note, layers=layers)

    def maps(self, image: Pixels, layer: str) -> MapsResponse:
        """Compute the intrinsic and ghost maps of one Ghost module.

        Raises:
            UnknownNameError: The network has no such Ghost module.
        """
        if layer not in self.modules:
            raise UnknownNameError("Ghost module with ghosts", layer, self.modules)
        (found,) = (maps for maps in collect_ghost_maps(self.model, self._input(image)) if maps.layer == layer)
        similarity, kernels, kinds = found.similarity(), self.kernels[layer].kernels, self.kernels[layer].kinds()
        num_ghosts, ratio = count_ghosts(self.modules[layer]), found.ghosts.shape[1]
        pairs: list[IntrinsicMapInfo] = []
        shown: list[Tensor] = []
        for i in found.intrinsic.flatten(1).var(1, correction=0).argsort(descending=True).tolist():
            indices = range(i * ratio, min(num_ghosts, (i + 1) * ratio))  # the last ghosts may be cut off
            ghosts = []
            for ghost in indices:
                cosine, kernel = float(similarity[i, ghost - indices.start]), kernels[i, ghost - indices.start]
                ghosts.append(
                    GhostInfo(
                        number=ghost,
                        similarity=None if math.isnan(cosine) else cosine,
                        kind=kinds[ghost],
                        kernel=kernel.flatten().tolist(),
                    )
                )
            pairs.append(IntrinsicMapInfo(intrinsic=i, ghosts=ghosts))
            shown += [found.intrinsic[i], *found.ghosts[i, : len(indices)]]
        _, height, width = found.intrinsic.shape
        pixels = base64.b64encode(_to_uint8(torch.stack(shown))).decode("ascii")
        return MapsResponse(layer=layer, height=height, width=width, pairs=pairs, pixels=pixels)

    @torch.inference_mode()
    def ablate(self, image: Pixels, off: dict[str, list[int] | None], *, fill: str, top: int) -> AblationResponse:
        """Compare the most probable classes of an image with all ghosts enabled and with some disabled.

        Raises:
            UnknownNameError: The network has no such Ghost module.
            ConfigurationError: A module has no such ghost.
        """
        x = self._input(image)
        with disable_ghosts(self.model, off, fill=fill):
            after = self._probabilities(x)
        before = self._probabilities(x)
        best = [scores.topk(min(top, len(scores))).indices.tolist() for scores in (before, after)]
        return AblationResponse(
            answers=[
                ClassChangeInfo.model_validate(
                    {"class": self.class_names[i], "before": float(before[i]), "after": float(after[i])}
                )
                for i in sorted({*best[0], *best[1]}, key=lambda i: -float(before[i]))
            ]
        )

    def _probabilities(self, x: Tensor) -> Tensor:
        """Return the probabilities (classes,) of one image, calibrated like the service's predictions."""
        scores = self.model(x)[0] / self.temperature
        return scores.sigmoid() if self.multi_label else scores.softmax(0)

    def _input(self, image: Pixels) -> Tensor:
        return self.preprocessing.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])


def _to_uint8(maps: Tensor) -> bytes:
    """Scale each float32 map of (N, H, W) from its minimum to its maximum; a constant map becomes 0."""
    flat = maps.flatten(1)
    low, high = flat.min(1, keepdim=True).values, flat.max(1, keepdim=True).values
    scaled = (flat - low) / torch.where(high > low, high - low, 1)
    return (scaled * 255).round().numpy().astype(np.uint8).tobytes()
