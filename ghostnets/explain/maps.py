"""The feature maps of a network, layer by layer, while images stream through it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm

from ghostnets.layers import GhostModule, RepConv

__all__ = ["MapLayer", "find_map_layers", "observe_maps"]

MAKERS = (GhostModule, RepConv, nn.Conv2d)  # what makes maps; what stands inside one of these is part of it


@dataclass(frozen=True)
class MapLayer:
    """A layer that makes maps.

    Attributes:
        name: Of the Ghost module or convolution.
        kind: ``"Ghost module"`` or ``"convolution"``, with ``"widening "`` before it where it has more outputs than
            inputs, or ``"depthwise convolution"``.
        last: Of the module whose output the maps are: the last normalisation, activation or identity right behind it.
        channels: C.
        size: (H, W).
    """

    name: str
    kind: str
    last: str
    channels: int
    size: tuple[int, int]


def find_map_layers(model: nn.Module, x: Tensor) -> list[MapLayer]:
    """Finds the layers that make maps, by running the network once.

    A layer is a ``GhostModule``, or a convolution outside of them, together with the normalisation and activation
    modules that work on its output directly: its maps are what the rest of the network sees. Additions (shortcuts) end
    it, and so does a module that runs more than once, such as a ReLU that serves two places. Left out are convolutions
    that run more than once, layers of one map, and maps of 1 x 1 pixel.

    Args:
        model: Any network, in evaluation mode; nothing in it changes.
        x: (1, C, H, W), ready for the network.

    Returns:
        The layers in the order they run.
    """
    runs: Counter[str] = Counter()
    chains: dict[str, list[tuple[str, torch.Size]]] = {}  # maker -> the modules that make its maps, with their output
    seen: dict[int, tuple[str, Tensor, int]] = {}  # id of a tensor -> its maker, itself (else the id is free), version

    def hook(name: str, is_maker: bool) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            runs[name] += 1
            if not inputs or not isinstance(output, Tensor) or output.dim() != 4:
                return
            maker = name
            if not is_maker:
                maker, _, version = seen.get(id(inputs[0]), ("", None, 0))
                works_in_place = int(output is inputs[0])
                if not maker or inputs[0]._version - works_in_place > version:  # something was added in place
                    return
            chains.setdefault(maker, []).append((name, output.shape))
            seen[id(output)] = (maker, output, output._version)

        return record

    makers = [name for name, module in model.named_modules() if isinstance(module, MAKERS)]
    inside = tuple(f"{name}." for name in makers)
    handles = []
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue
        if name in makers or _works_on_each_map(module):
            handles.append(module.register_forward_hook(hook(name, name in makers)))
    try:
        with torch.inference_mode(mode=False), torch.no_grad():  # inference tensors have no version
            model(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    layers = []
    for maker, chain in chains.items():
        once = list(itertools.takewhile(lambda link: runs[link[0]] == 1, chain))
        if once:
            last, (_, channels, height, width) = once[-1]
            if channels > 1 and height * width > 1:
                kind = _kind(model.get_submodule(maker))
                layers.append(MapLayer(maker, kind, last, channels, (height, width)))
    return layers


@contextmanager
def observe_maps(model: nn.Module, layers: list[MapLayer], see: Callable[[MapLayer, Tensor], None]) -> Iterator[None]:
    """Inside, each run of the network calls ``see(layer, maps)`` with maps (N, C, H, W), at once, layer after layer.

    The maps are the network's own tensors: read them, do not keep or change them. Only one layer's are alive at a time.
    """

    def hook(layer: MapLayer) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda module, inputs, output: see(layer, output)

    handles = [model.get_submodule(layer.last).register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _works_on_each_map(module: nn.Module) -> bool:
    """Whether the module is a normalisation, an activation or nothing at all."""
    kinds = (_BatchNorm, nn.Identity, nn.Dropout, nn.GroupNorm)
    return isinstance(module, kinds) or (
        type(module).__module__ == activation.__name__ and not isinstance(module, nn.MultiheadAttention | nn.Softmax)
    )


def _kind(maker: nn.Module) -> str:
    assert isinstance(maker, GhostModule | RepConv | nn.Conv2d)
    if isinstance(maker, GhostModule):
        kind = "Ghost module"
    elif maker.groups == maker.in_channels > 1:
        return "depthwise convolution"
    else:
        kind = "convolution"
    return f"widening {kind}" if maker.out_channels > maker.in_channels else kind
