"""Where the engine's time goes, layer by layer."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostnets.measure import MachineLimits

__all__ = ["LayerProfile", "ideal_seconds", "medians"]


@dataclass(frozen=True)
class LayerProfile:
    """One node of the plan, for one run.

    Attributes:
        name: Of its module in the network.
        kind: ``"ghost"``, ``"conv"``, ``"squeeze_excite"`` and so on; ``"waiting"`` for the time at barriers.
        macs: Multiply-adds for all images of the batch, with those that the engine adds (none but the ones and zeros
            that widen a shortcut), without those of padding.
        weight_bytes: Weights as they lie in memory.
        map_bytes: Of what its operations read and write, whatever cache that is in.
        seconds: Mean over the threads; the sum of all rows is the time of the run.
    """

    name: str
    kind: str
    macs: float
    weight_bytes: float
    map_bytes: float
    seconds: float


def ideal_seconds(layers: Iterable[LayerProfile], limits: "MachineLimits", *, precision: str) -> list[float | None]:
    """What each layer would take at the machine's limits: its arithmetic, or reading its weights, whichever is longer.

    Maps are not counted: that they stay in the nearest caches is what the engine is for.

    Args:
        layers: All layers of a network, whose weights pass through the caches in turn.
        limits: Measured with the session's number of threads.
        precision: Of the session.

    Returns:
        Seconds, None for a layer without multiply-adds, and for all where this precision has no measured limit.
    """
    layers = list(layers)
    speed = limits.macs_per_second.get(precision)
    bandwidth = limits.bandwidth(int(sum(layer.weight_bytes for layer in layers)))
    return [
        max(layer.macs / speed, layer.weight_bytes / bandwidth) if speed and layer.macs else None for layer in layers
    ]


def medians(runs: Sequence[Sequence[tuple[Any, ...]]]) -> list[LayerProfile]:
    """One profile from the rows of several runs, as the native module gives them."""
    return [
        LayerProfile(*(*rows[0][:-1], statistics.median(row[-1] for row in rows))) for rows in zip(*runs, strict=True)
    ]
