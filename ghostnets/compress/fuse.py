"""Fusion of layers: fewer layers with equal outputs in evaluation mode.

Both functions leave their input unchanged and return a new network, which can be trained further.
"""

import itertools

import torch
from torch import nn

from ghostnets.compress.sites import can_fold, has_own_weights
from ghostnets.layers import RepConv, fold_batch_norm, norm_arguments
from ghostnets.layers.copying import copy_module

__all__ = ["fuse", "reparameterize"]


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

    Convolutions and linear layers that are directly followed by a normalisation are folded in any ``nn.Sequential``,
    and elsewhere where a class names them as ``conv_norm_pairs``, as those of this package do: the order of
    registration alone is not the order of execution. An ``nn.Identity`` replaces each folded normalisation, so that the
    layers keep their names. What may compute something else is left as it is: other subclasses of convolutions and
    normalisations, such as timm's ``BatchNormAct2d`` with its activation, and weights that are computed from others.

    Args:
        model: Any network.

    Returns:
        A new network with the same outputs in evaluation mode, up to rounding.
    """
    fused = reparameterize(model)
    for parent in list(fused.modules()):
        is_sequence = type(parent).forward is nn.Sequential.forward  # a subclass may run its layers in another order
        pairs = itertools.pairwise(parent._modules) if is_sequence else getattr(parent, "conv_norm_pairs", ())
        for first, second in list(pairs):
            layer, norm = parent._modules.get(first), parent._modules.get(second)
            if (
                isinstance(layer, nn.Conv2d | nn.Linear)
                and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
                and _is_exact(layer, norm)
            ):
                setattr(parent, first, _folded(layer, norm))
                setattr(parent, second, nn.Identity())
    return fused


def _is_exact(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    """Return whether folding changes no output: both compute, by their own weights, what their names say."""
    is_plain = type(layer) in (nn.Conv2d, nn.Linear) and has_own_weights(layer) and can_fold(norm)
    return is_plain and not any(norm.children()) and norm.num_features == len(layer.weight)


@torch.no_grad()
def _folded(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Conv2d | nn.Linear:
    """Return a copy of the layer with the normalisation folded into its weight and bias."""
    weight, bias = fold_batch_norm(layer.weight, layer.bias, **norm_arguments(norm))
    folded = copy_module(layer, {id(parameter): parameter for parameter in layer.parameters()})  # which are replaced
    folded.weight = nn.Parameter(weight)
    folded.bias = nn.Parameter(bias)
    return folded
