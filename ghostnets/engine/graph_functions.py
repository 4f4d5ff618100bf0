"""The torch functions that a traced network may call, by name; each appends steps to the graph."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.engine.graph import (
    ChannelsError,
    Recorder,
    Step,
    TensorProxy,
    as_constant,
    raise_unsupported_step,
)
from ghostnets.engine.graph_maps import (
    are_sizes,
    as_pair,
    compute_window_size,
    record_adaptive_pool,
    record_arrange,
    record_average_pool,
    record_interpolate,
    record_max_pool,
    record_mean,
    record_pad,
    require_map,
)

__all__ = ["FUNCTIONS"]


def _record_conv2d(
    recorder: Recorder,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> TensorProxy:
    step = require_map(recorder, x)
    stride, dilation, kernel = as_pair(stride), as_pair(dilation), (int(weight.shape[2]), int(weight.shape[3]))
    if weight.shape[1] * groups != step.channels:
        reason = f"convolves {weight.shape[1] * groups} channels, but its map has {step.channels}"
        raise_unsupported_step(recorder.path, reason, error=ChannelsError)
    if stride[0] != stride[1]:
        recorder.reject(f"has strides of {stride}, which must be equal for the engine")
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        pads = (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    else:
        above, left = (0, 0) if padding == "valid" else as_pair(padding)
        pads = (above, left, above, left)
    return recorder.add(
        "conv",
        [step],
        len(weight),
        size=compute_window_size(step.size, kernel, stride, pads, dilation),
        weight=weight.detach().float().numpy(),
        bias=np.zeros(len(weight), np.float32) if bias is None else bias.detach().float().numpy(),
        stride=stride[0],
        dilation=dilation,
        groups=groups,
        pads=pads,
    )


def _record_linear(recorder: Recorder, x: Any, weight: Tensor, bias: Tensor | None = None) -> TensorProxy:
    if not isinstance(x, TensorProxy) or x.form != "vector":
        recorder.reject("applies a linear layer to feature maps")
    step = x.step
    height, width = step.size or (1, 1)
    kernel = weight.reshape(len(weight), step.channels, height, width)
    made = _record_conv2d(recorder, TensorProxy(recorder, step), kernel, bias)
    return TensorProxy(recorder, made.step, "vector")


def _record_batch_norm(
    recorder: Recorder,
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> TensorProxy:
    if training or running_mean is None or running_var is None or not isinstance(x, TensorProxy):
        recorder.reject("normalises by batch statistics")
    scale = (running_var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -running_mean.double() * scale + (0 if bias is None else bias.double())
    return x.like(_record_affine(recorder, x.step, scale, shift).step)


def _record_affine(recorder: Recorder, step: Step, scale: Tensor, shift: Tensor) -> TensorProxy:
    """Record a multiplication and an addition of constants, scalar or per channel."""
    values = [value.detach().double().reshape(-1).numpy() for value in (scale, shift)]
    if any(len(value) not in (1, step.channels) for value in values):
        reason = "combines a feature map with a constant whose shape is not (C, 1, 1)"
        raise_unsupported_step(recorder.path, reason, error=ChannelsError)
    arrays = [np.broadcast_to(value, (step.channels,)) for value in values]
    return recorder.add("affine", [step], step.channels, size=step.size, scale=arrays[0], shift=arrays[1])


def _make_activation(name: str) -> Callable[..., TensorProxy]:
    def record(recorder: Recorder, x: TensorProxy, *_: Any, **__: Any) -> TensorProxy:
        made = recorder.add("act", [x.step], x.step.channels, size=x.step.size, activation=name, slope=0.0)
        return x.like(made.step)

    return record


def _record_leaky_relu(recorder: Recorder, x: TensorProxy, negative_slope: float = 0.01) -> TensorProxy:
    if not 0 <= negative_slope <= 1:
        recorder.reject(f"has a leaky ReLU of slope {negative_slope}")
    made = _make_activation("leaky_relu")(recorder, x)
    made.step.fields["slope"] = float(negative_slope)
    return made


def _record_hardtanh(recorder: Recorder, x: TensorProxy, min_val: float = -1.0, max_val: float = 1.0) -> TensorProxy:
    names: dict[tuple[Any, Any], str] = {(0, 1): "clamp", (0, 6): "relu6", (0, None): "relu"}
    name = names.get((min_val, max_val))
    if name is None:
        recorder.reject(f"clamps values to [{min_val}, {max_val}]")
    return _make_activation(name)(recorder, x)


def _record_clamp(recorder: Recorder, x: TensorProxy, min: Any = None, max: Any = None) -> TensorProxy:  # noqa: A002
    return _record_hardtanh(recorder, x, min, max)


def _make_combination(op: str) -> Callable[..., TensorProxy]:
    def record(recorder: Recorder, a: Any, b: Any, *, alpha: float = 1) -> TensorProxy:
        if not isinstance(a, TensorProxy):
            a, b = b, a
        if alpha != 1:
            recorder.reject("adds with alpha other than 1")
        constant = as_constant(b)
        if constant is not None:
            one, zero = torch.ones(1), torch.zeros(1)
            sides = {"map": (1, 1), "vector": ()}.get(a.form)
            shape = (a.step.channels, *(sides or ()))
            if constant.numel() > 1 and (sides is None or (*constant.shape,)[-len(shape) :] != shape):
                reason = "combines a feature map with a constant whose shape is not (C, 1, 1)"
                raise_unsupported_step(recorder.path, reason, error=ChannelsError)
            pair = (one, constant) if op == "add" else (constant, zero)
            return a.like(_record_affine(recorder, a.step, *pair).step)
        first, second = require_map(recorder, a), require_map(recorder, b)
        if first.size == (1, 1) and second.size != (1, 1):
            first, second = second, first
        if first.channels != second.channels:
            reason = f"combines feature maps of {first.channels} and {second.channels} channels"
            raise_unsupported_step(recorder.path, reason, error=ChannelsError)
        sizes = {first.size, second.size} - {None, (1, 1)}
        if len(sizes) > 1:
            recorder.reject("combines feature maps of different sizes")
        if op == "add" and (first.size == (1, 1)) != (second.size == (1, 1)):
            recorder.reject("adds a map of one pixel to a larger map")
        return recorder.add(op, [first, second], first.channels, size=first.size)

    return record


def _record_div(recorder: Recorder, a: TensorProxy, b: Any) -> TensorProxy:
    if not isinstance(b, int | float):
        recorder.reject("divides by a feature map")
    return _make_combination("multiply")(recorder, a, 1 / b)


def _record_sub(recorder: Recorder, a: TensorProxy, b: Any) -> TensorProxy:
    constant = as_constant(b)
    if constant is None:
        recorder.reject("subtracts a feature map")
    return _make_combination("add")(recorder, a, -constant)


def _record_cat(recorder: Recorder, tensors: Any, dim: int = 0, *, axis: int | None = None) -> TensorProxy:
    steps = [require_map(recorder, x) for x in tensors]
    if (dim if axis is None else axis) not in (1, -3):
        recorder.reject("concatenates along an axis other than channels")
    return record_arrange(recorder, steps, list(range(sum(step.channels for step in steps))))


def _record_split(recorder: Recorder, x: Any, size: Any, dim: int = 0) -> list[TensorProxy]:
    step = require_map(recorder, x)
    if dim not in (1, -3):
        recorder.reject("splits along an axis other than channels")
    sizes = list(size) if isinstance(size, Sequence) else []
    while not isinstance(size, Sequence) and sum(sizes) < step.channels:
        sizes.append(min(size, step.channels - sum(sizes)))
    ends = np.cumsum(sizes)
    return [
        record_arrange(recorder, [step], list(range(end - count, end))).as_part_of(x)
        for count, end in zip(sizes, ends.tolist(), strict=True)
    ]


def _record_chunk(recorder: Recorder, x: Any, chunks: int, dim: int = 0) -> list[TensorProxy]:
    return _record_split(recorder, x, math.ceil(require_map(recorder, x).channels / chunks), dim)


def _record_getitem(recorder: Recorder, x: Any, index: Any) -> TensorProxy:
    step = require_map(recorder, x)
    parts: tuple[Any, ...] = index if isinstance(index, tuple) else (index,)
    whole = slice(None)
    if any(not isinstance(part, slice) for part in parts) or parts[0] != whole:
        recorder.reject("indexes an axis other than channels")
    parts = (*parts, *[whole] * (4 - len(parts)))
    channels: list[int] = list(range(step.channels))[parts[1]]
    made = x.as_form("map")
    if channels != list(range(step.channels)):
        made = record_arrange(recorder, [step], channels).as_part_of(x)
    steps = [part.step or 1 for part in parts[2:]]
    if any(part.start not in (None, 0) or part.stop is not None for part in parts[2:]) or steps[0] != steps[1]:
        recorder.reject("indexes with anything but a range of channels and a pixel stride")
    return record_max_pool(recorder, made, 1, steps[0]).as_part_of(x) if steps[0] > 1 else made


def _record_index_select(recorder: Recorder, x: Any, dim: int, index: Any) -> TensorProxy:
    step = require_map(recorder, x)
    if dim not in (1, -3) or not isinstance(index, Tensor):
        recorder.reject("selects along an axis other than channels, or by indices that depend on the images")
    return record_arrange(recorder, [step], index.tolist())


def _record_view(recorder: Recorder, x: TensorProxy, *sizes: Any) -> TensorProxy:
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
    step, channels = x.step, x.step.channels
    if len(sizes) == 5 and x.form == "map":
        groups = sizes[1] if sizes[1] != -1 else channels // max(sizes[2], 1)
        made = x.as_form("groups", groups)
    elif len(sizes) == 4 and x.form == "shuffled":
        each = channels // x.groups
        sources = [j % x.groups * each + j // x.groups for j in range(channels)]
        is_same = sources == list(range(channels))  # then the view is one of the same memory in torch, too
        made = x.as_form("map") if is_same else record_arrange(recorder, [step], sources)
    elif len(sizes) == 4 and (x.form == "map" or step.size == (1, 1)):
        made = x.as_form("map")
    elif len(sizes) == 2:
        made = _record_flatten(recorder, x, 1)
    else:
        recorder.reject("reshapes a feature map")
    if channels % made.groups or not are_sizes(sizes, made.shape):
        recorder.reject("reshapes a feature map")
    return made


def _record_transpose(recorder: Recorder, x: TensorProxy, first: int, second: int) -> TensorProxy:
    if x.form != "groups" or {first, second} != {1, 2}:
        recorder.reject("transposes a feature map")
    return x.as_form("shuffled", x.groups)


def _record_channel_shuffle(recorder: Recorder, x: TensorProxy, groups: int) -> TensorProxy:
    grouped = TensorProxy(recorder, require_map(recorder, x), "shuffled", groups)
    return _record_view(recorder, grouped, *x.shape)


def _record_flatten(recorder: Recorder, x: TensorProxy, start_dim: int = 0, end_dim: int = -1) -> TensorProxy:
    if x.form == "vector" and start_dim in (1, -1):
        return x
    if start_dim not in (1, -3) or end_dim not in (-1, 3) or x.form != "map" or x.step.size is None:
        recorder.reject("flattens the batch, or a map whose size depends on the images")
    return x.as_form("vector")


def _record_squeeze(recorder: Recorder, x: TensorProxy, dim: Any = None) -> TensorProxy:
    axes = {2, 3} if dim is None else set(dim if isinstance(dim, Sequence) else [dim])
    if x.step.size != (1, 1) or not axes <= {2, 3, -1, -2}:
        recorder.reject("squeezes an axis other than height and width")
    return x.as_form("vector")


def _return_unchanged(recorder: Recorder, x: TensorProxy, *args: Any, **kwargs: Any) -> TensorProxy:
    if kwargs.get("training"):
        recorder.reject("is in training mode")
    types = {value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)} - {torch.float32}
    if types:
        recorder.reject(f"converts a map to {types.pop()}")
    return x


def _record_clone(recorder: Recorder, x: TensorProxy, **_: Any) -> TensorProxy:
    return x.like(x.step)


def _record_dropout(recorder: Recorder, x: TensorProxy, p: float = 0.5, training: bool = True) -> TensorProxy:
    if training:
        recorder.reject("applies dropout in evaluation mode")
    return x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "conv2d": _record_conv2d,
    "linear": _record_linear,
    "batch_norm": _record_batch_norm,
    **{name: _make_activation(name) for name in ("relu", "relu6", "sigmoid", "silu")},
    "hardswish": _make_activation("hard_swish"),
    "hardsigmoid": _make_activation("hard_sigmoid"),
    "leaky_relu": _record_leaky_relu,
    "hardtanh": _record_hardtanh,
    "clamp": _record_clamp,
    "add": _make_combination("add"),
    "mul": _make_combination("multiply"),
    "multiply": _make_combination("multiply"),
    "div": _record_div,
    "sub": _record_sub,
    "cat": _record_cat,
    "concat": _record_cat,
    "split": _record_split,
    "chunk": _record_chunk,
    "getitem": _record_getitem,
    "index_select": _record_index_select,
    "view": _record_view,
    "reshape": _record_view,
    "transpose": _record_transpose,
    "channel_shuffle": _record_channel_shuffle,
    "flatten": _record_flatten,
    "squeeze": _record_squeeze,
    "mean": record_mean,
    "adaptive_avg_pool2d": record_adaptive_pool,
    "max_pool2d": record_max_pool,
    "avg_pool2d": record_average_pool,
    "interpolate": record_interpolate,
    "upsample": record_interpolate,
    "pad": record_pad,
    "dropout": _record_dropout,
    "dropout2d": _record_dropout,
    "stochastic_depth": _return_unchanged,
    "clone": _record_clone,
    **dict.fromkeys(("contiguous", "to", "float", "detach"), _return_unchanged),
}
