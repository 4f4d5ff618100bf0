"""What the blocks of the networks become in a plan: each a function (nodes, path, block, map) -> map."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from ghostnets.engine.nodes import Nodes, layers_of, unknown
from ghostnets.engine.plan import Layout
from ghostnets.layers import ConvBnAct, GhostBottleneck, GhostModule, SqueezeExcite
from ghostnets.models.d_li14 import DLi14Bottleneck, DLi14SqueezeExcite
from ghostnets.models.g_ghost import GGhostStage, RegNetBlock
from ghostnets.models.ghost_resnet import ResidualBlock, ZeroPadShortcut

__all__ = ["BLOCKS"]


def _conv_bn_act(nodes: Nodes, path: str, block: ConvBnAct, x: int) -> int:
    nodes.skipped(f"{path}.bn1", block.bn1)
    relu = type(block.act1) is nn.ReLU
    if not relu:
        nodes.skipped(f"{path}.act1", block.act1)
    return nodes.conv(f"{path}.conv", block.conv, x, Layout(block.conv.out_channels), relu=relu)


def _bottleneck(nodes: Nodes, path: str, block: GhostBottleneck, x: int) -> int:
    nodes.skipped(f"{path}.bn_dw", block.bn_dw)
    nodes.skipped(f"{path}.drop_path", block.drop_path)
    residual = _shortcut(nodes, f"{path}.shortcut", block.shortcut, x, nodes.layout(block.ghost2.out_channels))
    x = nodes.ghost(f"{path}.ghost1", block.ghost1, x)
    if type(block.conv_dw) is not nn.Identity:
        x = nodes.depthwise(f"{path}.conv_dw", block.conv_dw, x)
    if type(block.se) is SqueezeExcite:
        if type(block.se.act1) is not nn.ReLU:
            unknown(f"{path}.se.act1", block.se.act1)
        first, second = block.se.conv_reduce, block.se.conv_expand
        x = nodes.squeeze_excite(f"{path}.se", first, second, x, gate="hard_sigmoid")
    else:
        nodes.skipped(f"{path}.se", block.se)
    return nodes.ghost(f"{path}.ghost2", block.ghost2, x, residual=residual)


def _shortcut(nodes: Nodes, path: str, shortcut: nn.Module, x: int, to: Layout) -> int:
    """Nothing, or a depthwise convolution (and ReLU) and a 1x1 convolution."""
    layers = layers_of(path, shortcut)
    if not layers:
        return x
    depthwise, *between, pointwise = layers
    if len(layers) < 2 or len(between) > 1 or (between and type(between[0][1]) is not nn.ReLU):
        unknown(path, shortcut)
    x = nodes.depthwise(*depthwise, x, activation="relu" if between else "none")
    return nodes.conv(*pointwise, x, to)


def _d_li14_bottleneck(nodes: Nodes, path: str, block: DLi14Bottleneck, x: int) -> int:
    nodes.skipped(f"{path}.drop_path", block.drop_path)
    ghost1, depthwise, se, ghost2 = block.conv
    assert isinstance(ghost2, GhostModule)
    residual = _shortcut(nodes, f"{path}.shortcut", block.shortcut, x, nodes.layout(ghost2.out_channels))
    x = nodes.ghost(f"{path}.conv.0", ghost1, x)
    for where, layer in layers_of(f"{path}.conv.1", depthwise):
        x = nodes.depthwise(where, layer, x)
    if type(se) is DLi14SqueezeExcite:
        x = nodes.squeeze_excite(f"{path}.conv.2", se.fc[0], se.fc[2], x, gate="clamp")
    elif layers_of("", se):
        unknown(f"{path}.conv.2", se)
    return nodes.ghost(f"{path}.conv.3", ghost2, x, residual=residual)


def _residual_block(nodes: Nodes, path: str, block: ResidualBlock, x: int) -> int:
    nodes.skipped(f"{path}.drop_path", block.drop_path)
    if type(block.act) is not nn.ReLU:
        unknown(f"{path}.act", block.act)
    residual, shortcut = x, block.shortcut
    if type(shortcut) is ZeroPadShortcut:
        inputs = nodes.plan.layouts[x].out_channels
        layout = nodes.layout(inputs + shortcut.extra_channels)
        residual = _chosen(nodes, f"{path}.shortcut", x, layout, stride=shortcut.stride)
    elif type(shortcut) is not nn.Identity:
        residual = nodes.ghost(f"{path}.shortcut", shortcut, x)
    for name, layer in block.convs.named_children():
        x = nodes.ghost(f"{path}.convs.{name}", layer, x)
    return nodes.added(path, x, residual, relu=True)


def _chosen(nodes: Nodes, path: str, x: int, to: Layout, *, first: int = 0, stride: int = 1) -> int:
    """The channels of ``x``, every ``stride``-th pixel, as those of a wider map from ``first`` on; zeros beside them.

    A 1x1 convolution with ones and zeros: exact, and little work beside the convolutions around it.
    """
    inputs = nodes.plan.layouts[x].out_channels
    weight = np.eye(to.out_channels, inputs, -first, dtype=np.float32)[:, :, None, None]
    return nodes.dense(path, weight, np.zeros(to.out_channels, np.float32), x, to, stride=stride)


def _regnet_block(nodes: Nodes, path: str, block: RegNetBlock, x: int) -> int:
    return _regnet_parts(nodes, path, block, x, [slice(None)])[0]


def _regnet_parts(nodes: Nodes, path: str, block: RegNetBlock, x: int, parts: list[slice]) -> list[int]:
    """The block's output, cut into maps of some of its channels."""
    for name in ("bn1", "bn2", "bn3", "drop_path"):
        nodes.skipped(f"{path}.{name}", getattr(block, name))
    if type(block.relu) is not nn.ReLU:
        unknown(f"{path}.relu", block.relu)
    channels, shortcut = block.conv1.out_channels, layers_of(f"{path}.downsample", block.downsample)
    grouped = Layout(channels, block.conv2.groups, is_grouped=True)
    y = nodes.conv(f"{path}.conv1", block.conv1, x, grouped, relu=True)
    y = nodes.conv(f"{path}.conv2", block.conv2, y, grouped, relu=True)
    if len(shortcut) > 1 or (not shortcut and parts != [slice(None)]):
        unknown(f"{path}.downsample", block.downsample)
    maps = []
    for part in parts:
        to = Layout(len(range(channels)[part]))
        residual = nodes.conv(*shortcut[0], x, to, rows=part) if shortcut else x
        maps.append(nodes.added(path, nodes.conv(f"{path}.conv3", block.conv3, y, to, rows=part), residual, relu=True))
    return maps


def _g_ghost_stage(nodes: Nodes, path: str, stage: GGhostStage, x: int) -> int:
    raw_channels, channels = stage.raw_channels, stage.base.conv3.out_channels
    raw, others = _regnet_parts(
        nodes, f"{path}.base", stage.base, x, [slice(0, raw_channels), slice(raw_channels, channels)]
    )
    seen = [raw, others]
    for name, layer in stage.layers.named_children():
        if type(layer) is not RegNetBlock:
            unknown(f"{path}.layers.{name}", layer)
        raw = _regnet_block(nodes, f"{path}.layers.{name}", layer, raw)
        seen.append(raw)
    (where, conv), *rest = layers_of(f"{path}.cheap", stage.cheap)
    kinds = [type(layer) for _, layer in layers_of("", stage.merge)]
    if rest or kinds != [nn.AdaptiveAvgPool2d, nn.Conv2d, nn.ReLU, nn.Conv2d] or type(stage.cheap_relu) is not nn.ReLU:
        unknown(path, stage)
    cheap = nodes.conv(where, conv, others, Layout(channels - raw_channels))
    merge: Any = stage.merge
    cheap = nodes.mix(f"{path}.merge", merge[1], merge[4], cheap, seen)
    joined = [
        _chosen(nodes, f"{path}.end", m, Layout(channels), first=first)
        for m, first in ((raw, 0), (cheap, raw_channels))
    ]
    return _regnet_block(nodes, f"{path}.end", stage.end, nodes.added(f"{path}.end", *joined))


BLOCKS: dict[type[nn.Module], Callable[[Nodes, str, Any, int], int]] = {
    GhostModule: Nodes.ghost,
    ConvBnAct: _conv_bn_act,
    GhostBottleneck: _bottleneck,
    DLi14Bottleneck: _d_li14_bottleneck,
    ResidualBlock: _residual_block,
    RegNetBlock: _regnet_block,
    GGhostStage: _g_ghost_stage,
}
