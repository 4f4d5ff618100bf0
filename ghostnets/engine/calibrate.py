"""Calibration for int8: the range of every map of a network, from images."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.engine.plan import Array, Plan
from ghostnets.errors import ConfigurationError, EngineError

__all__ = ["METHODS", "calibrate"]

METHODS = ("minmax", "percentile")
PERCENT = 99.99  # percentile of an image's values at either end of the range
OUTLIER = 4.0  # times the median of the images' bounds: a bound beyond it is that of a rare image
EQUALIZATION = 0.25  # 0: one range for a map; 1: a range for each channel; chosen on one network (docs/log.md)


def calibrate(plan: Plan, native: Any, images: Iterable[Any], *, method: str) -> None:
    """Write the range of each map into a plan.

    Args:
        plan: Plan whose ``ranges`` are written.
        native: Native session that runs the plan in float32, with one thread.
        images: Arrays as for a session: float32 (N, C, H, W) or uint8 (N, H, W, C).
        method: ``"minmax"``: minimum and maximum over all images; ``"percentile"``: those within the images'
            percentiles 0.01 and 99.99 of the map, which ignores outliers, and within ``OUTLIER`` times what the median
            image has, which ignores rare images. Narrow channels get a smaller range.

    Raises:
        ConfigurationError: No image is given, or maps have values that are not finite.
        EngineError: The network cannot run images of this size.
    """
    found = [
        [_range(values, method) for values in _observe(native, batch[index : index + 1])]
        for batch in images
        for index in range(len(batch))
    ]
    if not found:
        raise ConfigurationError("calibration has no image; pass some representative images.")
    if not all(np.isfinite(values).all() for ranges in found for values in ranges):
        raise ConfigurationError(
            "the network has values that are not finite on the calibration images; pass images that it is used on,"
            " normalised as it expects."
        )
    chosen: dict[int, Array] = {}
    by_channel = _has_ranges_by_channel(plan)
    for map_index, ranges in enumerate(zip(*found, strict=True)):
        if len(ranges[0]):
            stacked = np.stack(ranges)
            each = np.stack([stacked[:, 0].min(0), stacked[:, 1].max(0)])
            if method == "percentile":
                each = _without_rare_images(each, stacked)
            one = np.repeat(np.stack([each[0].min(), each[1].max()])[:, None], each.shape[1], 1)
            chosen[map_index] = _equalize(each) if by_channel else one
    if not by_channel:
        _join_ranges(plan, chosen)
    for map_index in range(len(found[0])):
        plan.ranges.append(f"range.{map_index}" if map_index in chosen else None)
        if map_index in chosen:
            plan.tensors[f"range.{map_index}"] = np.ascontiguousarray(chosen[map_index], dtype=np.float32)


def _observe(native: Any, image: Array) -> list[Array]:
    """Return the values of every map, (pixels, channels), for one image."""
    try:
        values: list[Array] = native.observe(image)
    except ValueError as error:
        raise EngineError(
            f"the network cannot run calibration images of {image.shape} ({error}); pass some of another size."
        ) from error
    return values


def _has_ranges_by_channel(plan: Plan) -> bool:
    """Return whether each channel may have its own range.

    Padding, tables of activations and copied channels need one range for the whole map. Nodes that compute in float32
    need none.
    """
    for node in plan.nodes:
        if node.get("output") in plan.floats and node["kind"] != "convert":
            continue
        weight = plan.tensors.get(node.get("weight", ""))
        is_wide = weight is not None and weight.ndim == 4 and weight.shape[2:] != (1, 1)
        kinds = ("stem", "ghost", "conv", "depthwise", "squeeze_excite", "average", "pool", "linear", "convert")
        is_gate = node["kind"] in ("depthwise", "squeeze_excite")
        activations = ("none", "relu", *(("sigmoid", "hard_sigmoid", "clamp") if is_gate else ()))
        if (
            node["kind"] not in kinds
            or node.get("activation", "none") not in activations
            or (is_wide and node["kind"] in ("ghost", "conv"))
        ):
            return False
    return True


def _join_ranges(plan: Plan, ranges: dict[int, Array]) -> None:
    """Give one range to maps whose bytes are copied from one to another: those that are joined, split or resized."""
    parents = list(range(len(plan.layouts)))

    def root(index: int) -> int:
        while parents[index] != index:
            index = parents[index]
        return index

    for node in plan.nodes:
        if node["kind"] in ("arrange", "max_pool", "resize", "average"):
            for source in node["pooled"] if node["kind"] == "arrange" else [node["input"]]:
                parents[root(source)] = root(node["output"])
    groups: dict[int, list[int]] = {}
    for index in range(len(plan.layouts)):
        if index in ranges:
            groups.setdefault(root(index), []).append(index)
    for members in groups.values():
        low = min(float(ranges[index][0].min()) for index in members)
        high = max(float(ranges[index][1].max()) for index in members)
        for index in members:
            ranges[index][0], ranges[index][1] = low, high


def _range(values: npt.NDArray[np.float32], method: str) -> Array:
    """Return (2, channels) of values (pixels, channels), 0 included; empty if the map has no values."""
    if not values.size:
        return np.empty(0, np.float32)
    low, high = values.min(0), values.max(0)
    if method == "percentile":
        least, most = np.percentile(values, [100 - PERCENT, PERCENT])
        low, high = low.clip(min=least), high.clip(max=most)
    return np.stack([low.clip(max=0), high.clip(min=0)])


def _without_rare_images(ranges: Array, found: Array) -> Array:
    """Cut ranges (2, channels) at a multiple of the bounds that the median of the images (N, 2, channels) has."""
    low, high = np.median(found[:, 0].min(1)), np.median(found[:, 1].max(1))
    return np.stack([ranges[0].clip(min=OUTLIER * (low or -np.inf)), ranges[1].clip(max=OUTLIER * (high or np.inf))])


def _equalize(ranges: Array) -> Array:
    """Widen the range of each channel towards that of the widest one, (2, channels).

    A range of its own has the finest steps, but some images exceed a narrow one, as channels are rarely active; and the
    channel's weights in the next layer, which share one step with those of the others, are multiplied by its scale.
    Between the two, the width is that of the channel to the power of ``EQUALIZATION``.
    """
    width = ranges[1] - ranges[0]
    widest = width.max()
    if not widest > 0:
        return ranges
    whole = np.stack([ranges[0].min(), ranges[1].max()])[:, None]
    factor = (widest / np.maximum(width, widest * 1e-6)) ** (1 - EQUALIZATION)
    return np.where(width > 0, ranges * factor, whole).astype(np.float32)
