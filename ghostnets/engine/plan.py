"""The plan of a network: a list of nodes over maps, with folded weights.

A plan is plain data, so that it can be saved and run without torch. The channels of a map are laid out as the Ghost
module computes them: segment 0 holds the intrinsic maps, segment t the t-th ghost of each of them. ``Layout.order``
maps positions to the network's channels.
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
    """The order of the channels of a map.

    Attributes:
        out_channels: Channels of the map in the network.
        segments: s of the Ghost modules, 1 for maps that no Ghost module writes or reads; or the number of groups.
        is_grouped: Whether segments are groups of neighbouring channels, as in a grouped convolution.
    """

    out_channels: int
    segments: int = 1
    is_grouped: bool = False

    @property
    def channels(self) -> int:
        """Number of channels of a segment, m = ceil(C / s)."""
        return math.ceil(self.out_channels / self.segments)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """The network's channel at each position, (segments, channels); -1 for a ghost that the network discards."""
        if self.is_grouped:
            return np.arange(self.out_channels).reshape(self.segments, -1)
        intrinsic = np.arange(self.channels)
        ghosts = self.channels + np.arange((self.segments - 1) * self.channels).reshape(self.channels, -1).T
        order = np.concatenate([intrinsic[None], ghosts])
        return np.where(order < self.out_channels, order, -1)

    @property
    def positions(self) -> list[int]:
        """Position of each of the network's channels, counted without padding."""
        positions = {channel: position for position, channel in enumerate(self.order.reshape(-1).tolist())}
        return [positions[channel] for channel in range(self.out_channels)]

    def arrange(self, values: Array, axis: int) -> Array:
        """Reorder an axis of network channels into the layout, s * m long, with zeros for discarded ghosts."""
        padded = np.concatenate([values, np.zeros_like(values.take([0], axis))], axis)
        return padded.take(self.order.reshape(-1), axis)  # -1 is the zero at the end


@dataclass
class Plan:
    """Nodes in order of execution.

    Attributes:
        in_channels: Channels of the images.
        precision: ``"f32"``, ``"bf16"`` or ``"int8"``: how maps and weights are stored at run time; or ``"auto"``, the
            fastest of them on the machine (``choice``). Tensors are always float32.
        mean, std: Mean and standard deviation of pixels in [0, 1]; empty if uint8 images are not supported.
        layouts: Layout of each map; nodes refer to maps by index.
        nodes: ``kind``, ``name`` in the network, and the fields of ``Node`` in ``csrc/engine/plan.hpp``; weights by
            their names in ``tensors``.
        outputs: Maps that are returned: one of a single pixel, the logits or features, or those of a backbone.
        gives_maps: Whether the plan is a backbone's.
        tensors: Float32 arrays.
        floats: Maps that stay in float32 in any precision, with the weights of the nodes that read them; ``convert``
            nodes lie between these and other maps.
        ranges: For int8, the name of a tensor (2, segments * channels) for each map of the compiled network, minimum
            and maximum of each channel; None for maps that are not stored in bytes.
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
    floats: list[int] = field(default_factory=list)

    def new_map(self, layout: Layout) -> int:
        """Append a map and return its index."""
        self.layouts.append(layout)
        return len(self.layouts) - 1

    def add(self, kind: str, name: str, *, tensors: dict[str, Array] | None = None, **fields: Any) -> None:
        """Append a node; its tensors are named after its index."""
        names = {}
        for role, tensor in (tensors or {}).items():
            names[role] = f"{len(self.nodes)}.{kind}.{role}"
            self.tensors[names[role]] = np.ascontiguousarray(tensor, dtype=np.float32)
        self.nodes.append({"kind": kind, "name": name, **fields, **names})

    def empty_outputs(self, native_session: Any, count: int, height: int, width: int) -> list[Array]:
        """Allocate the outputs for ``count`` images of a size."""
        channels = [self.layouts[output].out_channels for output in self.outputs]
        if not self.gives_maps:
            return [np.empty((count, number), np.float32) for number in channels]
        sizes = native_session.output_sizes(max(1, count), height, width)
        return [np.empty((count, number, *size), np.float32) for number, size in zip(channels, sizes, strict=True)]

    def native(self, precision: str) -> dict[str, Any]:
        """Return the plan in the form that the native module reads, with maps and weights in this precision."""
        mean, std = (np.array(v or [d] * self.in_channels) for v, d in ((self.mean, 0.0), (self.std, 1.0)))
        return {
            "in_channels": self.in_channels,
            "precision": precision,
            "floats": self.floats,
            "scale": (1 / (255 * std)).tolist(),
            "shift": (-mean / std).tolist(),
            "layouts": [(layout.segments, layout.channels) for layout in self.layouts],
            "nodes": self.nodes,
            "orders": [self.layouts[map_].positions for map_ in self.outputs],
            "ranges": self.ranges,
        }
