"""Properties of graph steps: kinds of convolutions, layouts of Ghost modules, fields of their nodes."""

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
    "is_depthwise_step",
    "is_grouped_step",
    "is_linear_step",
    "is_stem_step",
]

MAX_SEGMENTS = 1024  # limit of the engine, per layout


def f32(values: Any) -> Array:
    """Return values as float32."""
    return np.asarray(values, np.float32)


def activation_of(step: Step) -> dict[str, Any]:
    """Return the node fields for a step's activation."""
    name = step.fields.get("activation", "none")
    return {"activation": name, **({"slope": step.fields["slope"]} if name == "leaky_relu" else {})}


def is_depthwise_step(conv: Step) -> bool:
    """Return whether a convolution step is depthwise: each group has one input channel."""
    groups = conv.fields["groups"]
    return bool(groups == conv.inputs[0].channels and groups > 1)


def is_grouped_step(conv: Step) -> bool:
    """Return whether a convolution step has groups of several input channels."""
    return bool(1 < conv.fields["groups"] <= MAX_SEGMENTS and not is_depthwise_step(conv))


def is_linear_step(conv: Step) -> bool:
    """Return whether a convolution step is a linear layer on one pixel."""
    fields = conv.fields
    is_plain = fields["groups"] == 1 and fields["stride"] == 1 and not any(fields["pads"])
    return bool(is_plain and conv.size == (1, 1) and fields["weight"].shape[2:] == (1, 1))


def is_stem_step(step: Step) -> bool:
    """Return whether a step that reads the images can be the first node."""
    if step.op == "ghost":
        primary = step.fields["primary"]
        return len(step.inputs) == 1 and primary["dilation"] == (1, 1)
    return step.op == "conv" and step.fields["groups"] == 1 and step.fields["dilation"] == (1, 1)


def ghost_layout(step: Step) -> Layout:
    """Return the layout of a Ghost module's output: intrinsic maps, then ghosts."""
    cheap, primary = step.fields["cheap"], step.fields["primary"]
    return Layout(step.channels, 1 + len(cheap["weight"]) // len(primary["weight"]))


def fields_of(step: Step, *names: str) -> dict[str, Any]:
    """Return the named fields of a step."""
    return {name: step.fields[name] for name in names if name in step.fields}
