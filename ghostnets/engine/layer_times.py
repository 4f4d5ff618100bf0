"""Time of each layer in the engine."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostnets.measure import MachineLimits

__all__ = ["LayerProfile", "ideal_seconds", "medians"]


@dataclass(frozen=True)
class LayerProfile:
    """Time and size of one node of the plan in one run.

    Attributes:
        name: Name of the module in the network.
        kind: ``"ghost"``, ``"conv"``, ``"squeeze_excite"`` and so on; ``"waiting"`` for the time between shares.
        macs: Multiply-adds for all images of the batch, including those that the engine adds (the ones and zeros that
            widen a shortcut), without those of padding.
        weight_bytes: Bytes of the packed weights.
        map_bytes: Bytes that its operations read and write, from any cache.
        seconds: Mean over the threads; the sum of all rows is the time of the run.
    """

    name: str
    kind: str
    macs: float
    weight_bytes: float
    map_bytes: float
    seconds: float


def ideal_seconds(layers: Iterable[LayerProfile], limits: "MachineLimits", *, precision: str) -> list[float | None]:
    """Return the time of each layer at the machine's limits: arithmetic, or reading its weights, whichever is longer.

    Maps are not counted: the engine keeps them in the nearest caches.

    Args:
        layers: All layers of a network, whose weights pass through the caches one after the other.
        limits: Limits measured with the session's number of threads.
        precision: Precision of the session.

    Returns:
        Seconds; None for a layer without multiply-adds, and for all layers if this precision has no measured limit.
    """
    layers = list(layers)
    speed = limits.macs_per_second.get(precision)
    bandwidth = limits.bandwidth(int(sum(layer.weight_bytes for layer in layers)))
    return [
        max(layer.macs / speed, layer.weight_bytes / bandwidth) if speed and layer.macs else None for layer in layers
    ]


def medians(runs: Sequence[Sequence[tuple[Any, ...]]]) -> list[LayerProfile]:
    """Return one profile with the median times of several runs of the native module."""
    return [
        LayerProfile(*(*rows[0][:-1], statistics.median(row[-1] for row in rows))) for rows in zip(*runs, strict=True)
    ]
