"""Weights of ncnn files (https://github.com/Tencent/ncnn): convolutions with folded normalisation, in float32 or 16.

A network consists of two files: ``.param``, text with one line per layer, and ``.bin``, the weights in the order of
these lines. Tensors have no names, so convolutions are matched in the order in which they run, and kernel, stride,
padding, dilation, groups, channels and activation of each pair are compared.
"""

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ghostnets.errors import CheckpointError

__all__ = ["NcnnConvolution", "load_ncnn", "read_ncnn"]

MAGIC = "7767517"
MAX_BYTES = 1 << 30
FLOAT16_TAG, FLOAT32_TAG = 0x01306B47, 0
ACTIVATIONS = {0: "none", 1: "ReLU", 2: "leaky ReLU"}
WITHOUT_WEIGHTS = frozenset(
    {
        "BinaryOp", "Concat", "Crop", "Eltwise", "Flatten", "HardSigmoid", "HardSwish", "Input", "Interp", "Noop",
        "Padding", "Permute", "Pooling", "ReLU", "Reshape", "ShuffleChannel", "Sigmoid", "Slice", "Softmax", "Split",
        "Swish",
    }
)  # fmt: skip


class NcnnConvolution(NamedTuple):
    """One convolution of an ncnn file, with its activation."""

    name: str
    weight: Tensor  # (C_out, C_in / groups, k_h, k_w), float32
    bias: Tensor  # (C_out,), float32
    geometry: tuple[tuple[int, int], ...]  # kernel, stride, padding, dilation: each vertical, horizontal
    groups: int
    activation: str  # "none", "ReLU" or "leaky ReLU"
    negative_slope: float  # of the leaky ReLU; 0 for other activations


def read_ncnn(param: str | os.PathLike[str]) -> list[NcnnConvolution]:
    """Read the convolutions of an ncnn network, in the order in which they run.

    Args:
        param: Path of the ``.param`` file; the ``.bin`` file is next to it, with the same stem.

    Raises:
        CheckpointError: A file is missing, damaged, or has a layer with weights that is not a convolution.
    """
    path = Path(param)
    lines = _read(path).decode("utf-8", errors="replace").splitlines()
    content = _read(path.with_suffix(".bin"))
    if not lines or lines[0].strip() != MAGIC:
        raise CheckpointError(f"{path} is not an ncnn network: its first line is not {MAGIC}; pass the .param file.")
    found, offset = [], 0
    for number, line in enumerate(lines[2:], start=3):
        if not (words := line.split()):
            continue
        kind = words[0]
        if kind in ("Convolution", "ConvolutionDepthWise"):
            try:
                convolution, offset = _parse_convolution(words, content, offset)
            except (KeyError, ValueError, IndexError, OverflowError, struct.error) as error:
                raise CheckpointError(
                    f"{path}, line {number}: {' '.join(words[:2])[:80]} cannot be read ({error}); convert the network"
                    " again."
                ) from error
            found.append(convolution)
        elif kind not in WITHOUT_WEIGHTS:
            raise CheckpointError(
                f"{path}, line {number}: layer {kind[:80]!r} is not supported; only convolutions may have weights."
            )
    if offset != len(content):
        raise CheckpointError(
            f"{path.with_suffix('.bin')} has {len(content)} bytes, but {path.name} describes {offset}; pass files of"
            " the same network."
        )
    return found


def load_ncnn(model: nn.Module, param: str | os.PathLike[str], *, bgr: bool = True, size: int = 64) -> None:
    """Load an ncnn file into a network of convolutions, strictly; the network is set to evaluation mode.

    ncnn has normalisation folded into its convolutions. Here each batch normalisation becomes the identity plus the
    convolution's bias, which is exact in evaluation mode; ``fuse`` folds it again. In training mode it would normalise
    maps that were not normalised in the file, so for further training the statistics have to be measured first.

    >>> detector = create_detector("nanodet_plus_m")  # doctest: +SKIP
    >>> load_ncnn(detector, "nanodet-plus-m_416.param")  # doctest: +SKIP

    Args:
        model: Network, modified in place; its layers run in the order of the file.
        param: Path of the ``.param`` file.
        bgr: Whether the file's network expects channels in the order blue, green, red; its first convolution is then
            converted to RGB.
        size: Height and width of the image on which the order of the layers is observed.

    Raises:
        CheckpointError: The files cannot be read, or a convolution differs from the network's.
    """
    convolutions = read_ncnn(param)
    model.eval()
    if not convolutions:
        raise CheckpointError(f"{os.fspath(param)} has no convolution; pass the file of a convolutional network.")
    channels = convolutions[0].weight.shape[1] * convolutions[0].groups
    try:
        layers = list(_trace(model, channels, size))
    except RuntimeError as error:
        raise CheckpointError(
            f"{os.fspath(param)} expects {channels} channels, which the network does not support ({error}); pass the"
            " file of the same network."
        ) from error
    if len(layers) != len(convolutions):
        raise CheckpointError(
            f"{os.fspath(param)} has {len(convolutions)} convolutions and the network {len(layers)}; pass the file of"
            f" a {type(model).__name__} with the same classes."
        )
    for index, (layer, source) in enumerate(zip(layers, convolutions, strict=True)):
        if (expected := _describe(layer)) != (actual := _describe_source(source)):
            raise CheckpointError(
                f"{os.fspath(param)}: {source.name[:80]} is a convolution {actual}, and {layer[0]} in the network one"
                f" {expected}; pass the file of the same network with the same classes."
            )
        if not (source.weight.isfinite().all() and source.bias.isfinite().all()):
            raise CheckpointError(f"{os.fspath(param)}: {source.name[:80]} has non-finite values; convert it again.")
        _assign(layer, source.weight.flip(1) if bgr and index == 0 else source.weight, source.bias)


Layer = tuple[str, nn.Conv2d, nn.BatchNorm2d | None, nn.Module | None]  # name, convolution, normalisation, activation


def _trace(model: nn.Module, channels: int, size: int) -> Iterator[Layer]:
    """Yield the convolutions in the order in which they run, with the layers that directly follow."""
    calls: list[tuple[str, nn.Module]] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU)
    hooks = [
        module.register_forward_hook(lambda module, _inputs, _output, name=name: calls.append((name, module)))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        weight = next(model.parameters())
        with torch.no_grad():
            model(torch.zeros(1, channels, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    for position, (name, module) in enumerate(calls):
        if not isinstance(module, nn.Conv2d):
            continue
        after = [following for _, following in calls[position + 1 : position + 3]]
        norm = after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
        after = after[norm is not None :]
        act = after[0] if after and isinstance(after[0], nn.ReLU | nn.LeakyReLU) else None
        yield name, module, norm, act


def _describe(layer: Layer) -> str:
    _, conv, _, act = layer
    slope = f" {act.negative_slope:g}" if isinstance(act, nn.LeakyReLU) else ""
    kind = ACTIVATIONS[0 if act is None else 2 if isinstance(act, nn.LeakyReLU) else 1]
    geometry = tuple(tuple(pair) for pair in (conv.kernel_size, conv.stride, conv.padding, conv.dilation))
    return _sentence(conv.weight, geometry, conv.groups, kind + slope)


def _describe_source(source: NcnnConvolution) -> str:
    slope = f" {source.negative_slope:g}" if source.activation == ACTIVATIONS[2] else ""
    return _sentence(source.weight, source.geometry, source.groups, source.activation + slope)


def _sentence(weight: Tensor, geometry: tuple[object, ...], groups: int, activation: str) -> str:
    _, stride, padding, dilation = geometry
    return (
        f"of weight {tuple(weight.shape)}, stride {stride}, padding {padding}, dilation {dilation}, {groups} groups,"
        f" activation {activation}"
    )


@torch.no_grad()
def _assign(layer: Layer, weight: Tensor, bias: Tensor) -> None:
    _, conv, norm, _ = layer
    conv.weight.copy_(weight)
    if norm is None:
        if conv.bias is None:
            raise CheckpointError(f"{layer[0]} has neither a bias nor a normalisation for the file's bias.")
        conv.bias.copy_(bias)
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight.fill_(1)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    if conv.bias is not None:
        conv.bias.zero_()


def _parse_convolution(words: list[str], content: bytes, offset: int) -> tuple[NcnnConvolution, int]:
    """Parse a layer's line and its weights; return it and the offset after them."""
    inputs, outputs = int(words[2]), int(words[3])
    values = dict(word.split("=", 1) for word in words[4 + inputs + outputs :])

    def integer(key: int, default: int) -> int:
        return int(values.get(str(key), default))

    kernel = integer(1, 0)
    kernels = (integer(11, kernel), kernel)
    pairs = [kernels] + [
        (integer(10 + key, integer(key, default)), integer(key, default)) for key, default in ((3, 1), (4, 0), (2, 1))
    ]
    channels, groups, count = integer(0, 0), integer(7, 1), integer(6, 0)
    area = channels * kernels[0] * kernels[1]
    if min(channels, groups, count, *kernels) < 1 or count % area or channels % groups:
        raise ValueError(f"{count} weights for {channels} channels, kernel {kernels}, {groups} groups")
    if integer(8, 0):
        raise ValueError("its weights are 8-bit integers; only float32 and float16 are read")
    if integer(9, 0) not in ACTIVATIONS:
        raise ValueError(f"its activation has number {integer(9, 0)}")
    activation = ACTIVATIONS[integer(9, 0)]
    slope = float(values["-23310"].split(",")[1]) if activation == ACTIVATIONS[2] else 0.0
    weight, offset = _weights(content, offset, count)
    bias = torch.zeros(channels)
    if integer(5, 0):
        bias, offset = _floats(content, offset, channels, np.dtype("<f4"))
    convolution = NcnnConvolution(
        words[1], weight.reshape(channels, -1, *kernels), bias, tuple(pairs), groups, activation, slope
    )
    return convolution, offset


def _weights(content: bytes, offset: int, count: int) -> tuple[Tensor, int]:
    (tag,) = struct.unpack_from("<I", content, offset)
    if tag not in (FLOAT16_TAG, FLOAT32_TAG):
        raise ValueError(f"its weights have the tag {tag:#x}; only float32 and float16 are read")
    weight, end = _floats(content, offset + 4, count, np.dtype("<f2" if tag == FLOAT16_TAG else "<f4"))
    return weight, offset + 4 + math.ceil((end - offset - 4) / 4) * 4


def _floats(content: bytes, offset: int, count: int, dtype: np.dtype[np.floating]) -> tuple[Tensor, int]:
    end = offset + count * dtype.itemsize
    if end > len(content):
        raise ValueError(f"the weights end at byte {len(content)}, and it needs them up to {end}")
    return torch.from_numpy(np.frombuffer(content, dtype, count, offset).astype(np.float32)), end


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES or not path.is_file():
            raise CheckpointError(f"{path} is larger than 1 GiB or not a regular file; pass a file of ncnn.")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); an ncnn network is two files, .param and .bin."
        ) from error
