"""Convert the blocks of the registry's networks to nodes: one function (builder, path, block, map) -> map per class."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from ghostnets.engine.plan import Layout
from ghostnets.engine.plan_builder import PlanBuilder, layers_of, raise_unsupported
from ghostnets.layers import ConvBnAct, GhostBottleneck, GhostModule, SqueezeExcite
from ghostnets.models.d_li14 import DLi14Bottleneck, DLi14SqueezeExcite
from ghostnets.models.g_ghost import GGhostStage, RegNetBlock
from ghostnets.models.ghost_resnet import ResidualBlock, ZeroPadShortcut

__all__ = ["BLOCKS"]


def _conv_bn_act(builder: PlanBuilder, path: str, block: ConvBnAct, x: int) -> int:
    builder.skip(f"{path}.bn1", block.bn1)
    relu = type(block.act1) is nn.ReLU
    if not relu:
        builder.skip(f"{path}.act1", block.act1)
    return builder.conv(f"{path}.conv", block.conv, x, Layout(block.conv.out_channels), relu=relu)


def _bottleneck(builder: PlanBuilder, path: str, block: GhostBottleneck, x: int) -> int:
    builder.skip(f"{path}.bn_dw", block.bn_dw)
    builder.skip(f"{path}.drop_path", block.drop_path)
    residual = _shortcut(builder, f"{path}.shortcut", block.shortcut, x, builder.layout(block.ghost2.out_channels))
    x = builder.ghost(f"{path}.ghost1", block.ghost1, x)
    if type(block.conv_dw) is not nn.Identity:
        x = builder.depthwise(f"{path}.conv_dw", block.conv_dw, x)
    if type(block.se) is SqueezeExcite:
        if type(block.se.act1) is not nn.ReLU:
            raise_unsupported(f"{path}.se.act1", block.se.act1)
        first, second = block.se.conv_reduce, block.se.conv_expand
        x = builder.squeeze_excite(f"{path}.se", first, second, x, gate="hard_sigmoid")
    else:
        builder.skip(f"{path}.se", block.se)
    return builder.ghost(f"{path}.ghost2", block.ghost2, x, residual=residual)


def _shortcut(builder: PlanBuilder, path: str, shortcut: nn.Module, x: int, to: Layout) -> int:
    """Add a shortcut: the identity, or a depthwise convolution (and ReLU) and a 1x1 convolution."""
    layers = layers_of(path, shortcut)
    if not layers:
        return x
    depthwise, *between, pointwise = layers
    if len(layers) < 2 or len(between) > 1 or (between and type(between[0][1]) is not nn.ReLU):
        raise_unsupported(path, shortcut)
    x = builder.depthwise(*depthwise, x, activation="relu" if between else "none")
    return builder.conv(*pointwise, x, to)


def _d_li14_bottleneck(builder: PlanBuilder, path: str, block: DLi14Bottleneck, x: int) -> int:
    builder.skip(f"{path}.drop_path", block.drop_path)
    ghost1, depthwise, se, ghost2 = block.conv
    assert isinstance(ghost2, GhostModule)
    residual = _shortcut(builder, f"{path}.shortcut", block.shortcut, x, builder.layout(ghost2.out_channels))
    x = builder.ghost(f"{path}.conv.0", ghost1, x)
    for where, layer in layers_of(f"{path}.conv.1", depthwise):
        x = builder.depthwise(where, layer, x)
    if type(se) is DLi14SqueezeExcite:
        x = builder.squeeze_excite(f"{path}.conv.2", se.fc[0], se.fc[2], x, gate="clamp")
    elif layers_of("", se):
        raise_unsupported(f"{path}.conv.2", se)
    return builder.ghost(f"{path}.conv.3", ghost2, x, residual=residual)


def _residual_block(builder: PlanBuilder, path: str, block: ResidualBlock, x: int) -> int:
    builder.skip(f"{path}.drop_path", block.drop_path)
    if type(block.act) is not nn.ReLU:
        raise_unsupported(f"{path}.act", block.act)
    residual, shortcut = x, block.shortcut
    if type(shortcut) is ZeroPadShortcut:
        inputs = builder.plan.layouts[x].out_channels
        layout = builder.layout(inputs + shortcut.extra_channels)
        residual = _embedded(builder, f"{path}.shortcut", x, layout, stride=shortcut.stride)
    elif type(shortcut) is not nn.Identity:
        residual = builder.ghost(f"{path}.shortcut", shortcut, x)
    for name, layer in block.convs.named_children():
        x = builder.ghost(f"{path}.convs.{name}", layer, x)
    return builder.add(path, x, residual, relu=True)


def _embedded(builder: PlanBuilder, path: str, x: int, to: Layout, *, first: int = 0, stride: int = 1) -> int:
    """Embed every ``stride``-th pixel of ``x`` into a wider map, from channel ``first`` on; other channels are zero.

    This is a 1x1 convolution with ones and zeros: exact, and cheap compared with the convolutions around it.
    """
    inputs = builder.plan.layouts[x].out_channels
    weight = np.eye(to.out_channels, inputs, -first, dtype=np.float32)[:, :, None, None]
    return builder.gemm(path, weight, np.zeros(to.out_channels, np.float32), x, to, stride=stride)


def _regnet_block(builder: PlanBuilder, path: str, block: RegNetBlock, x: int) -> int:
    return _regnet_splits(builder, path, block, x, [slice(None)])[0]


def _regnet_splits(builder: PlanBuilder, path: str, block: RegNetBlock, x: int, splits: list[slice]) -> list[int]:
    """Return the block's output, split into maps of some of its channels each."""
    for name in ("bn1", "bn2", "bn3", "drop_path"):
        builder.skip(f"{path}.{name}", getattr(block, name))
    if type(block.relu) is not nn.ReLU:
        raise_unsupported(f"{path}.relu", block.relu)
    channels, shortcut = block.conv1.out_channels, layers_of(f"{path}.downsample", block.downsample)
    grouped = Layout(channels, block.conv2.groups, is_grouped=True)
    y = builder.conv(f"{path}.conv1", block.conv1, x, grouped, relu=True)
    y = builder.conv(f"{path}.conv2", block.conv2, y, grouped, relu=True)
    if len(shortcut) > 1 or (not shortcut and splits != [slice(None)]):
        raise_unsupported(f"{path}.downsample", block.downsample)
    maps = []
    for split in splits:
        to = Layout(len(range(channels)[split]))
        residual = builder.conv(*shortcut[0], x, to, rows=split) if shortcut else x
        maps.append(
            builder.add(path, builder.conv(f"{path}.conv3", block.conv3, y, to, rows=split), residual, relu=True)
        )
    return maps


def _g_ghost_stage(builder: PlanBuilder, path: str, stage: GGhostStage, x: int) -> int:
    raw_channels, channels = stage.raw_channels, stage.base.conv3.out_channels
    raw, others = _regnet_splits(
        builder, f"{path}.base", stage.base, x, [slice(0, raw_channels), slice(raw_channels, channels)]
    )
    maps = [raw, others]
    for name, layer in stage.layers.named_children():
        if type(layer) is not RegNetBlock:
            raise_unsupported(f"{path}.layers.{name}", layer)
        raw = _regnet_block(builder, f"{path}.layers.{name}", layer, raw)
        maps.append(raw)
    (where, conv), *rest = layers_of(f"{path}.cheap", stage.cheap)
    kinds = [type(layer) for _, layer in layers_of("", stage.merge)]
    if rest or kinds != [nn.AdaptiveAvgPool2d, nn.Conv2d, nn.ReLU, nn.Conv2d] or type(stage.cheap_relu) is not nn.ReLU:
        raise_unsupported(path, stage)
    cheap = builder.conv(where, conv, others, Layout(channels - raw_channels))
    merge: Any = stage.merge
    cheap = builder.mix(f"{path}.merge", merge[1], merge[4], cheap, maps)
    joined = [
        _embedded(builder, f"{path}.end", m, Layout(channels), first=first)
        for m, first in ((raw, 0), (cheap, raw_channels))
    ]
    return _regnet_block(builder, f"{path}.end", stage.end, builder.add(f"{path}.end", *joined))


BLOCKS: dict[type[nn.Module], Callable[[PlanBuilder, str, Any, int], int]] = {
    GhostModule: PlanBuilder.ghost,
    ConvBnAct: _conv_bn_act,
    GhostBottleneck: _bottleneck,
    DLi14Bottleneck: _d_li14_bottleneck,
    ResidualBlock: _residual_block,
    RegNetBlock: _regnet_block,
    GGhostStage: _g_ghost_stage,
}
