"""Feature maps of a network, layer by layer, while images stream through it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm

from ghostnets.layers import GhostModule, RepConv

__all__ = ["MapLayer", "find_map_layers", "observe_maps"]

PRODUCERS = (GhostModule, RepConv, nn.Conv2d)  # modules that compute maps; their children belong to them


@dataclass(frozen=True)
class MapLayer:
    """A layer that produces feature maps.

    Attributes:
        name: Name of the Ghost module or convolution.
        kind: ``"Ghost module"`` or ``"convolution"``, prefixed by ``"widening "`` if it has more output than input
            channels; or ``"depthwise convolution"``.
        output_module: Name of the module that outputs the maps: the last normalisation, activation or identity that
            directly follows the layer, or the layer itself.
        channels: C.
        size: (H, W).
    """

    name: str
    kind: str
    output_module: str
    channels: int
    size: tuple[int, int]


def find_map_layers(model: nn.Module, x: Tensor) -> list[MapLayer]:
    """Find the layers that produce feature maps, by running the network once.

    A layer is a ``GhostModule``, or a convolution outside of one, with the normalisation and activation modules that
    directly follow: its maps are the input of the rest of the network. Additions (shortcuts) end a layer, and so does a
    module that runs more than once, such as a shared ReLU. Convolutions that run more than once, layers with a single
    map and maps of 1 x 1 pixel are left out.

    Args:
        model: Any network, in evaluation mode; left unchanged.
        x: Preprocessed image, (1, C, H, W).

    Returns:
        The layers in execution order.
    """
    runs: Counter[str] = Counter()
    chains: dict[str, list[tuple[str, torch.Size]]] = {}  # producer -> it and its followers, with their output shapes
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # id of a tensor -> producer, tensor (keeps the id valid), version

    def hook(name: str, is_producer: bool) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            runs[name] += 1
            if not inputs or not isinstance(output, Tensor) or output.dim() != 4:
                return
            producer = name
            if not is_producer:
                producer, _, version = outputs.get(id(inputs[0]), ("", None, 0))
                in_place = int(output is inputs[0])
                if not producer or inputs[0]._version - in_place > version:  # an in-place addition in between
                    return
            chains.setdefault(producer, []).append((name, output.shape))
            outputs[id(output)] = (producer, output, output._version)

        return record

    producers = [name for name, module in model.named_modules() if isinstance(module, PRODUCERS)]
    children = tuple(f"{name}." for name in producers)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not name.startswith(children) and (name in producers or _is_channelwise(module)):
                hooks.enter_context(module.register_forward_hook(hook(name, name in producers)))
        with torch.inference_mode(mode=False), torch.no_grad():  # inference tensors have no version counter
            model(x.clone())
    layers = []
    for producer, chain in chains.items():
        once = list(itertools.takewhile(lambda link: runs[link[0]] == 1, chain))
        if once:
            output_module, (_, channels, height, width) = once[-1]
            if channels > 1 and height * width > 1:
                kind = _kind(model.get_submodule(producer))
                layers.append(MapLayer(producer, kind, output_module, channels, (height, width)))
    return layers


@contextmanager
def observe_maps(
    model: nn.Module, layers: list[MapLayer], callback: Callable[[MapLayer, Tensor], None]
) -> Iterator[None]:
    """Call ``callback(layer, maps)`` with maps (N, C, H, W) as each layer runs, within the context.

    The maps are the network's own tensors: do not modify them, and copy what must outlive the call.
    """

    def hook(layer: MapLayer) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda module, inputs, output: callback(layer, output)

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(model.get_submodule(layer.output_module).register_forward_hook(hook(layer)))
        yield


def _is_channelwise(module: nn.Module) -> bool:
    """Return whether the module is a normalisation, an activation, dropout or an identity."""
    kinds = (_BatchNorm, nn.Identity, nn.Dropout, nn.GroupNorm)
    return isinstance(module, kinds) or (
        type(module).__module__ == activation.__name__ and not isinstance(module, nn.MultiheadAttention | nn.Softmax)
    )


def _kind(producer: nn.Module) -> str:
    assert isinstance(producer, GhostModule | RepConv | nn.Conv2d)
    if isinstance(producer, GhostModule):
        kind = "Ghost module"
    elif producer.groups == producer.in_channels > 1:
        return "depthwise convolution"
    else:
        kind = "convolution"
    return f"widening {kind}" if producer.out_channels > producer.in_channels else kind
