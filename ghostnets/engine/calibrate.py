"""Calibration for int8: the range of every map of a network, from images."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.engine.plan import Array, Plan
from ghostnets.errors import ConfigurationError, EngineError

__all__ = ["METHODS", "calibrate", "check_nodes"]

METHODS = ("minmax", "percentile")
PERCENT = 99.99  # of an image's values are within the range, on either side


def check_nodes(plan: Plan) -> None:
    """Raise EngineError if a plan has operations that int8 does not support."""
    for node in plan.nodes:
        weight = plan.tensors.get(node.get("weight", ""))
        is_wide = weight is not None and weight.ndim == 4 and weight.shape[2:] != (1, 1)
        is_wide |= node["kind"] != "depthwise" and node.get("stride", 1) > 1
        if (
            node["kind"] in ("add", "mix", "max_pool", "output")
            or node.get("groups", 1) > 1
            or ("second_weight" in node if node["kind"] == "stem" else is_wide and node["kind"] in ("conv", "ghost"))
        ):
            raise EngineError(
                f"int8 does not support {node['name']} ({node['kind']}), only GhostNets; use f32 or bf16."
            )


def calibrate(plan: Plan, native: Any, images: Iterable[Any], *, method: str) -> None:
    """Write the range of each map into a plan.

    Args:
        plan: Plan whose ``ranges`` are written.
        native: Native session that runs the plan in float32, with one thread.
        images: Arrays as for a session: float32 (N, C, H, W) or uint8 (N, H, W, C).
        method: ``"minmax"``: minimum and maximum over all images; ``"percentile"``: minimum and maximum of the
            images' percentiles 0.01 and 99.99, which ignores outliers.

    Raises:
        ConfigurationError: There is no image.
    """
    found = [
        [_range(values, method) for values in native.observe(batch[index : index + 1])]
        for batch in images
        for index in range(len(batch))
    ]
    if not found:
        raise ConfigurationError("calibration has no image; pass some images of the kind that the network is used on.")
    for map_index, ranges in enumerate(zip(*found, strict=True)):
        if not len(ranges[0]):
            plan.ranges.append(None)
            continue
        stacked = np.stack(ranges)
        chosen = np.stack([stacked[:, 0].min(0), stacked[:, 1].max(0)])
        plan.ranges.append(f"range.{map_index}")
        plan.tensors[f"range.{map_index}"] = np.ascontiguousarray(chosen, dtype=np.float32)


def _range(values: npt.NDArray[np.float32], method: str) -> Array:
    """Return (2, channels), the same range for all channels of a map; empty if the map has no values."""
    if not values.size:
        return np.empty(0, np.float32)
    if method == "minmax":
        low, high = values.min(), values.max()
    else:
        low, high = np.percentile(values, [100 - PERCENT, PERCENT])
    return np.repeat(np.array([[low], [high]], np.float32), values.shape[1], 1)
