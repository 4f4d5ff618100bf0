"""Torch functions that pool, pad and resize a traced feature map, and helpers for all traced functions."""

from collections.abc import Sequence
from typing import Any

from ghostnets.engine.graph import Recorder, Step, SymbolicSize, TensorProxy

__all__ = [
    "Pair",
    "are_sizes",
    "as_pair",
    "compute_window_size",
    "record_adaptive_pool",
    "record_arrange",
    "record_average_pool",
    "record_interpolate",
    "record_max_pool",
    "record_mean",
    "record_pad",
    "require_map",
]

Pair = tuple[int, int]


def as_pair(value: Any) -> Pair:
    """Return an int or a pair of ints as a (vertical, horizontal) pair."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    return (int(values[0]), int(values[-1]))


def are_sizes(sizes: Sequence[Any], shape: Sequence[Any]) -> bool:
    """Return whether the sizes that a view asks for are those of a shape; one may be -1."""

    def is_size(size: Any, side: Any) -> bool:
        if isinstance(size, SymbolicSize) and isinstance(side, SymbolicSize):
            return size.axis == side.axis
        return isinstance(size, int) and (size == -1 or (isinstance(side, int) and size == side))

    return len(sizes) == len(shape) and all(map(is_size, sizes, shape))


def require_map(recorder: Recorder, x: Any) -> Step:
    """Return the step of a (N, C, H, W) proxy; raise EngineError for other values and views."""
    if not isinstance(x, TensorProxy) or x.form != "map":
        recorder.reject("applies an operation on feature maps to another tensor")
    return x.step


def compute_window_size(
    size: Pair | None, kernel: Pair, stride: Pair, pads: Sequence[int], dilation: Pair
) -> Pair | None:
    """Return the output size of a convolution or pooling, or None if it depends on the images."""
    if size is None:
        return None
    padded = (size[0] + pads[0] + pads[2], size[1] + pads[1] + pads[3])
    height, width = (
        (p - d * (k - 1) - 1) // s + 1 for p, k, s, d in zip(padded, kernel, stride, dilation, strict=True)
    )
    return (height, width)


def record_arrange(recorder: Recorder, inputs: list[Step], sources: list[int]) -> TensorProxy:
    """Record a channel selection: ``sources`` has an index into the concatenated inputs per output channel, or -1."""
    return recorder.add("arrange", inputs, len(sources), size=inputs[0].size, sources=sources)


def record_mean(recorder: Recorder, x: Any, dim: Any = None, keepdim: bool = False) -> TensorProxy:
    """Record the mean over all pixels."""
    if dim is None or {axis % 4 for axis in (dim if isinstance(dim, Sequence) else [dim])} != {2, 3}:
        recorder.reject("averages over axes other than height and width")
    made = record_adaptive_pool(recorder, x, 1)
    return made if keepdim else TensorProxy(recorder, made.step, "vector")


def record_adaptive_pool(recorder: Recorder, x: Any, output_size: Any) -> TensorProxy:
    """Record adaptive average pooling."""
    step = require_map(recorder, x)
    values = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
    if any(not isinstance(value, int) for value in values):
        recorder.reject(f"pools to an output of {output_size}")
    return recorder.add("adaptive_pool", [step], step.channels, size=as_pair(output_size))


def _pool_fields(
    recorder: Recorder, step: Step, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> dict[str, Any]:
    kernels, strides, pads, dilations = (
        as_pair(value) for value in (kernel, kernel if stride is None or stride == [] else stride, padding, dilation)
    )
    if any(pair[0] != pair[1] for pair in (kernels, strides, pads, dilations)):
        recorder.reject("pools with a window that is not square")
    if kernels[0] > 15:
        recorder.reject(f"pools with a kernel size of {kernels[0]}, above 15")
    # In ceil_mode a last window may end beyond the padding, but begins before it.
    end = min(pads[0] + strides[0] - 1, dilations[0] * (kernels[0] - 1)) if ceil_mode else pads[0]
    fields = {"kernel": kernels[0], "stride": strides[0], "pad": pads[0], "pad_end": end, "dilation": dilations[0]}
    size = compute_window_size(step.size, kernels, strides, (pads[0], pads[0], end, end), dilations)
    return {**fields, "size": size}


def record_max_pool(
    recorder: Recorder,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> TensorProxy:
    """Record max pooling."""
    step = require_map(recorder, x)
    if return_indices:
        recorder.reject("returns pooling indices")
    fields = _pool_fields(recorder, step, kernel_size, stride, padding, dilation, ceil_mode)
    return recorder.add("max_pool", [step], step.channels, **fields)


def record_average_pool(
    recorder: Recorder,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> TensorProxy:
    """Record average pooling."""
    step = require_map(recorder, x)
    fields = _pool_fields(recorder, step, kernel_size, stride, padding, 1, ceil_mode)
    counts = count_include_pad and fields["pad"] > 0
    if divisor_override is not None or (ceil_mode and counts):
        recorder.reject("averages with a divisor other than the window size")
    return recorder.add("average_pool", [step], step.channels, counts_padding=counts, **fields)


def record_interpolate(
    recorder: Recorder,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> TensorProxy:
    """Record nearest or bilinear resizing."""
    step = require_map(recorder, x)
    if mode not in ("nearest", "bilinear") or antialias:
        recorder.reject(f"resizes in mode {mode}")
    fields: dict[str, Any] = {"is_bilinear": int(mode == "bilinear"), "aligns_corners": int(bool(align_corners))}
    inputs, fixed = [step], None
    if scale_factor is not None:
        factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * 2
        if len(set(factors)) > 1 or factors[0] != int(factors[0]) or not 1 <= factors[0] <= 64:
            recorder.reject(f"resizes by {scale_factor}, not by an integer up to 64")
        fields["factor"] = int(factors[0])
        fixed = (step.size[0] * int(factors[0]), step.size[1] * int(factors[0])) if step.size else None
    else:
        sizes = tuple(size) if isinstance(size, Sequence) else (size, size)
        if all(isinstance(side, int) for side in sizes):
            fixed = as_pair(sizes)
            fields |= {"out_h": fixed[0], "out_w": fixed[1]}
        elif (
            all(isinstance(side, SymbolicSize) for side in sizes)
            and sizes[0].step is sizes[1].step
            and [side.axis for side in sizes] == [2, 3]
        ):
            inputs.append(sizes[0].step)
        else:
            recorder.reject("resizes to a size that is neither constant nor that of another feature map")
    return recorder.add("resize", inputs, step.channels, size=fixed, **fields)


def record_pad(recorder: Recorder, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> TensorProxy:
    """Record padding of pixels and channels."""
    step, pads = require_map(recorder, x), [*pad, *[0] * (6 - len(pad))]
    if mode != "constant" or any(not isinstance(side, int) or side < 0 for side in pads) or len(pads) > 6:
        recorder.reject(f"pads by {pad} in mode {mode}")
    left, right, above, below, front, back = pads
    if front or back:
        if value:
            recorder.reject("pads channels with a value other than 0")
        x = record_arrange(recorder, [step], [*[-1] * front, *range(step.channels), *[-1] * back])
    if not any(pads[:4]):
        return TensorProxy(recorder, x.step)
    if value not in (None, 0, float("-inf")):
        recorder.reject(f"pads with {value}")
    size = compute_window_size(x.step.size, (1, 1), (1, 1), (above, left, below, right), (1, 1))
    is_zero = not value
    return recorder.add("pad", [x.step], x.step.channels, size=size, pads=(above, left, below, right), is_zero=is_zero)
