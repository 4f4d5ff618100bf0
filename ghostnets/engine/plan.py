"""What the engine is told: a network as a list of nodes over maps, with folded weights.

A plan is plain data, so that it can be saved and run without torch. The channels of a map are laid out as the Ghost
module makes them: segment 0 holds the intrinsic maps, segment t the t-th ghost of each of them. ``Layout.order`` says
which channel of the network stands where.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Layout", "Plan"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Where the channels of a map stand.

    Attributes:
        out_channels: Channels that the network knows of.
        segments: s of the Ghost modules, 1 for maps that no Ghost module makes or meets; or the number of groups.
        is_grouped: Whether segments are groups of neighbouring channels, as a grouped convolution takes them.
    """

    out_channels: int
    segments: int = 1
    is_grouped: bool = False

    @property
    def channels(self) -> int:
        """Channels of a segment, m = ceil(C / s)."""
        return math.ceil(self.out_channels / self.segments)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """(segments, channels): the network's channel at each place, -1 for a ghost that the network cuts off."""
        if self.is_grouped:
            return np.arange(self.out_channels).reshape(self.segments, -1)
        intrinsic = np.arange(self.channels)
        ghosts = self.channels + np.arange((self.segments - 1) * self.channels).reshape(self.channels, -1).T
        order = np.concatenate([intrinsic[None], ghosts])
        return np.where(order < self.out_channels, order, -1)

    @property
    def places(self) -> list[int]:
        """Where each of the network's channels stands, counted without padding."""
        places = {channel: place for place, channel in enumerate(self.order.reshape(-1).tolist())}
        return [places[channel] for channel in range(self.out_channels)]

    def arrange(self, values: Array, axis: int) -> Array:
        """Brings the axis of network channels into the order of the layout, zeros where there is none: s * m long."""
        padded = np.concatenate([values, np.zeros_like(values.take([0], axis))], axis)
        return padded.take(self.order.reshape(-1), axis)  # -1 is the zero at the end


@dataclass
class Plan:
    """Nodes in order of execution.

    Attributes:
        in_channels: Channels of the images.
        precision: ``"f32"``, ``"bf16"`` or ``"int8"``: how maps and weights are stored while it runs. Tensors are
            float32 always.
        mean, std: Of pixels in [0, 1], for uint8 images; empty where only normalised floats are taken.
        layouts: Of each map; nodes name maps by their index.
        nodes: ``kind``, ``name`` in the network, and fields as ``csrc/network.hpp`` lists them; weights by their names
            in ``tensors``.
        outputs: The maps that are returned: one of a pixel, the logits or features, or those of a backbone.
        gives_maps: Whether it is a backbone's.
        tensors: Float32 arrays.
        ranges: For int8, of each map of the compiled network the name of a tensor (2, segments * channels), the least
            and the greatest value of each channel; None for maps that are not in bytes.
    """

    in_channels: int
    precision: str = "f32"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layouts: list[Layout] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    gives_maps: bool = False
    ranges: list[str | None] = field(default_factory=list)

    def new_map(self, layout: Layout) -> int:
        self.layouts.append(layout)
        return len(self.layouts) - 1

    def add(self, kind: str, name: str, *, tensors: dict[str, Array] | None = None, **fields: Any) -> None:
        """Appends a node; its tensors are named after its place."""
        names = {}
        for role, tensor in (tensors or {}).items():
            names[role] = f"{len(self.nodes)}.{kind}.{role}"
            self.tensors[names[role]] = np.ascontiguousarray(tensor, dtype=np.float32)
        self.nodes.append({"kind": kind, "name": name, **fields, **names})

    def native(self) -> dict[str, Any]:
        """The plan as the native module takes it."""
        mean, std = (np.array(v or [d] * self.in_channels) for v, d in ((self.mean, 0.0), (self.std, 1.0)))
        return {
            "in_channels": self.in_channels,
            "precision": self.precision,
            "scale": (1 / (255 * std)).tolist(),
            "shift": (-mean / std).tolist(),
            "layouts": [(layout.segments, layout.channels) for layout in self.layouts],
            "nodes": self.nodes,
            "orders": [self.layouts[map_].places for map_ in self.outputs],
            "ranges": self.ranges,
        }
