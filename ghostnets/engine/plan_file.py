"""Files of compiled networks: weights and plan as one safetensors file. Reading checks every value of the plan."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from ghostnets.engine.plan import Array, Layout, Plan
from ghostnets.errors import EngineError
from ghostnets.files import write_atomically

__all__ = ["PRECISIONS", "read_plan", "write_plan"]

METADATA_KEY = "ghostnets.engine"
FORMAT_VERSION = 2
PRECISIONS = ("auto", "f32", "bf16", "int8")
KINDS = (
    *("stem", "ghost", "conv", "depthwise", "add", "squeeze_excite", "mix", "average", "max_pool", "pool"),
    *("linear", "output", "multiply", "scale", "arrange", "average_pool", "adaptive_pool", "resize", "convert"),
)
ACTIVATIONS = ("none", "relu", "sigmoid", "hard_sigmoid", "clamp", "relu6", "leaky_relu", "hard_swish", "silu")
NUMBERS = (
    *("input", "output", "residual", "gate", "groups", "stride", "dilation_h", "dilation_w", "primary_dilation"),
    *("kernel", "pad", "pad_end", "like", "out_h", "out_w", "factor"),
)
FLAGS = ("counts_padding", "is_bilinear", "aligns_corners", "ends_group")

WEIGHTS = ("weight", "bias", "second_weight", "second_bias")
MAX_COUNT = 8192  # of nodes and maps
MAX_CHANNELS = 2**20  # of a map
MAX_OUTPUT_CHANNELS = 2**22  # of all outputs
MAX_NUMBER = 2**15


class _FaultError(Exception):
    """A fault of a plan; the message is a clause without full stop."""


def write_plan(plan: Plan, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a plan and its weights; arguments and errors as ``Session.save``."""
    description = {
        "format_version": FORMAT_VERSION,
        "in_channels": plan.in_channels,
        "outputs": plan.outputs,
        "gives_maps": plan.gives_maps,
        "precision": plan.precision,
        "mean": plan.mean,
        "std": plan.std,
        "layouts": [[layout.out_channels, layout.segments, layout.is_grouped] for layout in plan.layouts],
        "nodes": plan.nodes,
        "ranges": plan.ranges,
        "floats": plan.floats,
    }
    content = to_bytes(plan.tensors, metadata={**(metadata or {}), METADATA_KEY: json.dumps(description)})
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan that ``write_plan`` wrote, without trust: its numbers, names and types are checked.

    The native module checks how maps and weights fit one another, as it does for every plan.

    Raises:
        EngineError: The file is missing, damaged or of another version.
    """
    if not Path(path).is_file():
        raise EngineError(f"there is no file {path}; Session.save writes one.")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            _demand(text is not None, f"its metadata has no {METADATA_KEY}")
            description = json.loads(text or "")
            _demand(isinstance(description, dict), "its plan is not a mapping")
            version = description.get("format_version")
            if version == FORMAT_VERSION:
                return _plan(description, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (_FaultError, SafetensorError, OSError, ValueError, TypeError, RecursionError, KeyError) as error:
        reason = "its plan is nested too deeply" if isinstance(error, RecursionError) else error
        raise EngineError(f"{path} is not a compiled network, or damaged ({reason}); write it again.") from error
    raise EngineError(
        f"{path} has plan format {_short(version)}, this ghostnets reads format {FORMAT_VERSION}; compile the network"
        " again."
    )


def _plan(description: dict[str, Any], tensors: dict[str, Array]) -> Plan:
    """Return the plan of a description after a check of every value."""
    for name, tensor in tensors.items():
        _demand(tensor.dtype == "float32", f"its tensor {_short(name)} is {tensor.dtype}, not float32")
    layouts = [_layout(value) for value in _list(description, "layouts", MAX_COUNT)]
    nodes = [_node(value, tensors) for value in _list(description, "nodes", MAX_COUNT)]
    in_channels = _integer(description.get("in_channels"), "in_channels", 1, 4096)
    mean, std = (tuple(_finite(v, name) for v in _list(description, name, 4096)) for name in ("mean", "std"))
    _demand(len(mean) == len(std) and len(mean) in (0, in_channels), f"mean and std have not {in_channels} values")
    _demand(min(std, default=1.0) >= 1e-6, "a value of std is below 1e-6")
    outputs = [_integer(value, "outputs", 0, len(layouts) - 1) for value in _list(description, "outputs", len(layouts))]
    _demand(len(set(outputs)) == len(outputs) > 0, "it has no outputs, or one of them twice")
    total = sum(layouts[output].out_channels for output in outputs)
    _demand(total <= MAX_OUTPUT_CHANNELS, f"its outputs have {total} channels")
    precision, gives_maps = description.get("precision"), description.get("gives_maps")
    _demand(precision in PRECISIONS, f"precision is {_short(precision)}, not one of {', '.join(PRECISIONS)}")
    _demand(gives_maps is any(node["kind"] == "output" for node in nodes), f"gives_maps is {_short(gives_maps)}")
    ranges = _list(description, "ranges", 4 * MAX_COUNT)
    for name in ranges:
        _demand(name is None or (isinstance(name, str) and name in tensors), f"it has no range {_short(name)}")
    listed = _list({"floats": [], **description}, "floats", len(layouts))  # files of former versions have none
    floats = [_integer(value, "floats", 0, len(layouts) - 1) for value in listed]
    return Plan(
        in_channels=in_channels,
        precision=str(precision),
        mean=mean,
        std=std,
        layouts=layouts,
        nodes=nodes,
        tensors=tensors,
        outputs=outputs,
        gives_maps=bool(gives_maps),
        ranges=ranges,
        floats=floats,
    )


def _layout(value: Any) -> Layout:
    _demand(isinstance(value, list) and len(value) == 3, f"a layout is {_short(value)}")
    channels = _integer(value[0], "the channels of a layout", 1, MAX_CHANNELS)
    segments = _integer(value[1], "the segments of a layout", 1, 1024)
    is_grouped = value[2]
    _demand(isinstance(is_grouped, bool), f"a layout is {_short(value)}")
    _demand(not is_grouped or channels % segments == 0, f"{segments} groups do not divide {channels} channels")
    return Layout(channels, segments, is_grouped)


def _node(value: Any, tensors: Mapping[str, Array]) -> dict[str, Any]:
    """Return a node after a check of its fields alone."""
    _demand(isinstance(value, dict), f"a node is {_short(value)}")
    kind, name = value.get("kind"), value.get("name", "")
    _demand(kind in KINDS, f"a node is of unknown kind {_short(kind)}")
    _demand(isinstance(name, str), f"the name of a node is {_short(name)}")
    where = f"of node {_short(name)}"
    for key, field in value.items():
        if key in NUMBERS:
            _integer(field, f"{key} {where}", -1, MAX_NUMBER)
        elif key == "pooled":
            for number in _list(value, key, MAX_COUNT):
                _integer(number, f"{key} {where}", 0, MAX_NUMBER)
        elif key in FLAGS:
            _integer(field, f"{key} {where}", 0, 1)
        elif key == "pads":
            for number in _list(value, key, 4):
                _integer(number, f"{key} {where}", 0, MAX_NUMBER)
        elif key == "sources":
            for number in _list(value, key, MAX_CHANNELS):
                _integer(number, f"{key} {where}", -1, 256 * MAX_CHANNELS)
        elif key == "slope":
            _finite(field, f"{key} {where}")
        elif key in ("activation", "inner_activation"):
            _demand(field in ACTIVATIONS, f"activation {where} is {_short(field)}")
        elif key in WEIGHTS:
            _demand(isinstance(field, str) and field in tensors, f"{key} {where} is {_short(field)}, no tensor of it")
        else:
            _demand(key in ("kind", "name"), f"a field {where} is {_short(key)}")
    return value


def _demand(condition: bool, fault: str) -> None:
    if not condition:
        raise _FaultError(fault)


def _short(value: Any) -> str:
    """Return the representation of a value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, a value nested too deeply
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _integer(value: Any, name: str, low: int, high: int) -> int:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    _demand(is_integer and low <= value <= high, f"{name} is {_short(value)}, not an integer from {low} to {high}")
    return int(value)


def _finite(value: Any, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _demand(is_number and abs(value) <= 1e6 and math.isfinite(value), f"a value of {name} is {_short(value)}")
    return float(value)


def _list(values: Mapping[str, Any], name: str, longest: int) -> list[Any]:
    value = values.get(name)
    _demand(isinstance(value, list), f"{name} is {_short(value)}, not a list")
    assert isinstance(value, list)
    _demand(len(value) <= longest, f"{name} has {len(value)} entries, not at most {longest}")
    return value
