"""Properties of the steps of a graph: kinds of convolutions, layouts of Ghost modules, fields of nodes."""

from typing import Any

import numpy as np

from ghostnets.engine.graph import Step
from ghostnets.engine.plan import Array, Layout

__all__ = [
    "MAX_SEGMENTS",
    "activation_of",
    "f32",
    "fields_of",
    "ghost_layout",
    "is_depthwise",
    "is_grouped",
    "is_linear",
    "is_stem",
]

MAX_SEGMENTS = 1024  # of a layout


def f32(values: Any) -> Array:
    """Return values as float32."""
    return np.asarray(values, np.float32)


def activation_of(step: Step) -> dict[str, Any]:
    """Return the fields of a node for a step's activation."""
    name = step.fields.get("activation", "none")
    return {"activation": name, **({"slope": step.fields["slope"]} if name == "leaky_relu" else {})}


def is_depthwise(conv: Step) -> bool:
    """Whether each group of a convolution is one channel."""
    groups = conv.fields["groups"]
    return bool(groups == conv.inputs[0].channels and groups > 1)


def is_grouped(conv: Step) -> bool:
    """Whether a convolution has groups of several channels."""
    return bool(1 < conv.fields["groups"] <= MAX_SEGMENTS and not is_depthwise(conv))


def is_linear(conv: Step) -> bool:
    """Whether a convolution is a linear layer on one pixel."""
    fields = conv.fields
    is_plain = fields["groups"] == 1 and fields["stride"] == 1 and not any(fields["pads"])
    return bool(is_plain and conv.size == (1, 1) and fields["weight"].shape[2:] == (1, 1))


def is_stem(step: Step) -> bool:
    """Whether a step that reads the images can be the first node."""
    if step.op == "ghost":
        primary = step.fields["primary"]
        return len(step.inputs) == 1 and primary["dilation"] == (1, 1)
    return step.op == "conv" and step.fields["groups"] == 1 and step.fields["dilation"] == (1, 1)


def ghost_layout(step: Step) -> Layout:
    """Layout of a Ghost module's map: its intrinsic maps, then the ghosts."""
    cheap, primary = step.fields["cheap"], step.fields["primary"]
    return Layout(step.channels, 1 + len(cheap["weight"]) // len(primary["weight"]))


def fields_of(step: Step, *names: str) -> dict[str, Any]:
    """Return some of a step's fields."""
    return {name: step.fields[name] for name in names if name in step.fields}
