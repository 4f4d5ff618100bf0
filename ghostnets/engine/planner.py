"""Convert a network to a plan: networks of the registry by their classes, all others by tracing.

Normalisation is folded and the branches of GhostNetV3 are merged first (``compress.fuse``). A module is recognised by
its exact class; an unsupported one raises an error that names it.
"""

from typing import Any

import torch
from torch import nn

from ghostnets.compress import fuse
from ghostnets.engine.blocks import BLOCKS
from ghostnets.engine.graph_planner import make_graph_plan
from ghostnets.engine.plan import Plan
from ghostnets.engine.plan_builder import IMAGES, PlanBuilder, layers_of, raise_unsupported
from ghostnets.errors import EngineError
from ghostnets.layers import GhostConv2d, GhostModule
from ghostnets.models import Backbone
from ghostnets.models.registry import NETWORK_CLASSES

__all__ = ["make_plan"]


def make_plan(
    model: nn.Module, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = (), output: str = "logits"
) -> Plan:
    """Return the plan of a network in evaluation mode; the network is not changed.

    Args:
        model: Network. Networks of the registry and their ``Backbone`` are converted by class, others, and those that
            ``ghostify`` changed, by tracing.
        mean: Mean of pixels in [0, 1], one value per channel, to support uint8 images.
        std: Standard deviation of pixels in [0, 1], one value per channel.
        output: ``"logits"``, ``"features"`` or ``"features+logits"``, as in ``compile``.

    Raises:
        EngineError: The engine does not support a module; the message has its path and class.
    """
    if type(model) not in (*NETWORK_CLASSES, Backbone) or len(_ratios(model)) > 1 or _is_changed(model):
        return make_graph_plan(model, mean=mean, std=std, output=output)
    network: Any = fuse(model)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    plan = Plan(first.in_channels, mean=mean, std=std, gives_maps=type(network) is Backbone)
    builder = PlanBuilder(plan, ratio=max(_ratios(network), default=1))
    levels = [level.module for level in network.feature_levels] if plan.gives_maps else []
    x = _path(builder, network, levels)
    if not plan.gives_maps:
        plan.outputs = [_head(builder, network, x, output=output)]
    return plan


def _is_changed(network: nn.Module) -> bool:
    """Return whether ``ghostify`` changed a network: a convolution is a Ghost module, or has other channels."""
    for module in network.modules():
        if isinstance(module, GhostConv2d):
            return True
        if isinstance(module, GhostModule) and not module.has_ghosts:
            conv = module.primary_conv[0]
            widths = (module.in_channels, module.out_channels)
            if isinstance(conv, nn.Conv2d) and (conv.in_channels, conv.out_channels) != widths:
                return True
    return False


def _ratios(network: nn.Module) -> set[int]:
    """Return the ratios of all Ghost modules; conversion by class supports one ratio, as added maps share a layout."""
    return {module.ratio for module in network.modules() if isinstance(module, GhostModule) and module.has_ghosts}


def _path(builder: PlanBuilder, network: Any, levels: list[str]) -> int:
    """Add the layers from the images to the last map; ``levels`` become outputs."""
    layers: list[tuple[str, nn.Module]] = []
    ends: dict[int, str] = {}  # number of layers up to the end of a level
    for name in network.path:
        layers += layers_of(name, network.get_submodule(name))
        if name in levels:
            ends[len(layers)] = name
    x, index = IMAGES, 0
    while index < len(layers):
        (path, layer), done = layers[index], index + 1
        following = [module for _, module in layers[done : done + 2]]
        if type(layer) in BLOCKS:
            x = BLOCKS[type(layer)](builder, path, layer, x)
        elif type(layer) is nn.Conv2d:
            # A backbone does not register convolution and normalisation as neighbours, so fuse has not merged them.
            if following and type(following[0]) is nn.BatchNorm2d:
                fused: Any = fuse(nn.Sequential(layer, following.pop(0)))
                layer, done = fused[0], done + 1
            relu = bool(following) and type(following[0]) is nn.ReLU
            x, done = builder.conv(path, layer, x, builder.layout(layer.out_channels), relu=relu), done + relu
        elif type(layer) is nn.MaxPool2d:
            x = builder.max_pool(path, layer, x)
        elif type(layer) is nn.ConstantPad2d and type(following[0]) is nn.MaxPool2d:
            (left, right, top, bottom), value = layer.padding, layer.value
            if (left, top, right, value) != (0, 0, bottom, float("-inf")):
                raise_unsupported(path, layer)
            x, done = builder.max_pool(path, following[0], x, pad_end=right), done + 1
        else:
            raise_unsupported(path, layer)
        for end in range(index + 1, done + 1):
            if end in ends:
                if end < done:
                    raise EngineError(
                        f"the map of {ends[end]} is before normalisation, which the engine folds into the convolution;"
                        " leave that level out with out_indices, or run the backbone in torch."
                    )
                builder.output(ends[end], x)
        index = done
    return x


def _head(builder: PlanBuilder, network: Any, x: int, *, output: str) -> int:
    """Add global pooling and linear layers.

    For ``"features"`` the classifier is left out; for ``"features+logits"`` it is extended to return its input too.
    """
    layers = [layer for name in network.head_path for layer in layers_of(name, network.get_submodule(name))]
    (path, pool), *rest = [(p, layer) for p, layer in layers if output != "features" or p != network.classifier_name]
    if type(pool) is not nn.AdaptiveAvgPool2d or pool.output_size not in (1, (1, 1)):
        raise_unsupported(path, pool)
    x = builder.pool(path, x)
    while rest:
        (path, layer), *rest = rest
        if output == "features+logits" and path == network.classifier_name:
            layer = _with_identity(layer)
        relu = bool(rest) and type(rest[0][1]) is nn.ReLU
        x, rest = builder.linear(path, layer, x, relu=relu), rest[relu:]
    return x


def _with_identity(classifier: Any) -> nn.Linear:
    """Return a linear layer whose output is its input followed by the logits of the classifier, both bit for bit.

    The features come first: where their number is a multiple of the vector length, the engine sums each logit as it
    does for the classifier alone.
    """
    weight, bias = classifier.weight.detach().reshape(len(classifier.weight), -1), classifier.bias.detach()
    features = weight.shape[1]
    joint = nn.Linear(features, features + len(weight), device="meta")
    joint.weight = nn.Parameter(torch.cat([torch.eye(features), weight]))
    joint.bias = nn.Parameter(torch.cat([torch.zeros(features), bias]))
    return joint
