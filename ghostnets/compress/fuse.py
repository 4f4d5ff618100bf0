"""Fusion of layers: fewer layers with equal outputs in evaluation mode.

Both functions leave their input unchanged and return a new network, which can be trained further.
"""

import itertools

import torch
from torch import nn

from ghostnets.layers import RepConv, fold_batch_norm, norm_arguments
from ghostnets.layers.copying import copy_module

__all__ = ["fuse", "reparameterize"]

# Outside of Sequentials, the order of registration is not the order of execution. These pairs run in sequence in the
# Ghost layers; a class of this package with other names lists its own as conv_norm_pairs.
PAIRS = (("conv_stem", "bn1"), ("conv_dw", "bn_dw"), ("conv", "bn1"))


def reparameterize(model: nn.Module) -> nn.Module:
    """Merge the branches of every re-parameterisable convolution (GhostNetV3) into one convolution.

    Args:
        model: Any network; without such convolutions the result is a plain copy.

    Returns:
        A new network with the same outputs in evaluation mode, up to rounding.
    """
    merged = copy_module(model)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepConv):
                setattr(parent, name, child.merged())
    return merged


def fuse(model: nn.Module) -> nn.Module:
    """Merge branches as ``reparameterize`` does, and fold every batch normalisation into the layer before it.

    Convolutions and linear layers that are directly followed by a normalisation are folded, in any ``nn.Sequential``
    and in the Ghost layers of this package (stem, Ghost modules, depthwise convolution, shortcut, DFC gate, head). An
    ``nn.Identity`` replaces each folded normalisation, so that the layers keep their names.

    Args:
        model: Any network.

    Returns:
        A new network with the same outputs in evaluation mode, up to rounding.
    """
    fused = reparameterize(model)
    for parent in list(fused.modules()):
        names = list(parent._modules)
        pairs = getattr(type(parent), "conv_norm_pairs", PAIRS)
        neighbours = itertools.pairwise(names) if isinstance(parent, nn.Sequential) else pairs
        for first, second in list(neighbours):
            layer, norm = parent._modules.get(first), parent._modules.get(second)
            if isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, first, _folded(layer, norm))
                setattr(parent, second, nn.Identity())
    return fused


@torch.no_grad()
def _folded(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Conv2d | nn.Linear:
    """Return a copy of the layer with the normalisation folded into its weight and bias."""
    weight, bias = fold_batch_norm(layer.weight, layer.bias, **norm_arguments(norm))
    folded = copy_module(layer, {id(parameter): parameter for parameter in layer.parameters()})  # which are replaced
    folded.weight = nn.Parameter(weight)
    folded.bias = nn.Parameter(bias)
    return folded
