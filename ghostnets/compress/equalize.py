"""Cross-layer equalisation: scale the channels between two layers so that they use a shared range better.

A ReLU, or any other homogeneous layer, passes a positive factor of a channel on. So the factor that divides a channel
in one layer can multiply it in the next one without changing the network (Nagel et al., ICCV 2019). The range of what
the next layer reads is known from images, hence factors balance ranges of maps with weights, as in SmoothQuant (Xiao et
al., ICML 2023).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ghostnets.compress.hooks import temporary_hooks
from ghostnets.compress.sites import LEAVES, ConvTracer, ImageTracer, can_fold, flattens, is_depthwise, only_user

__all__ = ["LayerPair", "bias_of", "equalize", "find_norms", "find_pairs"]

HOMOGENEOUS_MODULES = (
    *(nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ZeroPad2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
HOMOGENEOUS_FUNCTIONS = {
    *(F.relu, F.leaky_relu, torch.relu, torch.relu_, F.dropout, F.dropout2d),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
}
HOMOGENEOUS_METHODS = ("relu", "relu_", "contiguous")
LARGEST = 16.0  # factor; the smallest one is its inverse
CLIP = 6.0  # upper bound of ReLU6
MARGIN = 0.95  # share of CLIP that scaled values may reach


@dataclass(frozen=True)
class LayerPair:
    """Two layers with nothing but homogeneous layers, and perhaps ReLU6, between them.

    Attributes:
        first: Name of the convolution that writes the channels.
        norm: Name of the batch normalisation after it, or "".
        second: Name of the convolution or linear layer that is their only reader.
        is_clipped: Whether a ReLU6 is between them.
    """

    first: str
    norm: str
    second: str
    is_clipped: bool


class _LayerTracer(ImageTracer):
    """Traces with convolutions, linear layers and normalisations of any class as single nodes, and into all others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*LEAVES, nn.BatchNorm1d)) or super().is_leaf_module(m, module_qualified_name)


def find_pairs(model: nn.Module) -> list[LayerPair]:
    """Find the pairs of layers that can be equalised, in order of execution; none if ``torch.fx`` cannot trace it."""
    try:
        graph = ConvTracer().trace(model)
    except Exception:  # a module's own code can raise anything while it is traced
        return []
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    pairs = []
    for node in graph.nodes:
        is_conv = node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), nn.Conv2d)
        pair = _pair(model, node) if is_conv else None
        names = () if pair is None else tuple(filter(None, (pair.first, pair.norm, pair.second)))
        if pair is not None and all(called.count(name) == 1 and name not in read for name in names):
            pairs.append(pair)
    return pairs


def find_norms(model: nn.Module) -> dict[str, str]:
    """Return, by the name of a layer, the batch normalisation that is its only reader."""
    try:
        graph = _LayerTracer().trace(model)
    except Exception:  # as in find_pairs
        return {}
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    norms = {}
    for node in graph.nodes:
        user = only_user(node) if node.op == "call_module" else None
        if user is not None and user.op == "call_module":
            module = model.get_submodule(str(user.target))
            is_single = called.count(str(user.target)) == called.count(str(node.target)) == 1
            if is_single and isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
                norms[str(node.target)] = str(user.target)
    return norms


def bias_of(model: nn.Module, name: str, norms: dict[str, str]) -> tuple[Tensor, int] | None:
    """Return the tensor that moves the output of a layer, and the sign; None if there is none."""
    bias = model.get_submodule(name).bias
    if bias is not None:
        assert isinstance(bias, Tensor)
        return bias, 1
    mean = getattr(model.get_submodule(norms[name]), "running_mean", None) if name in norms else None
    return None if mean is None else (mean, -1)


def _pair(model: nn.Module, node: fx.Node) -> LayerPair | None:
    first = str(node.target)
    conv = model.get_submodule(first)
    assert isinstance(conv, nn.Conv2d)
    norm, is_flat, is_clipped, reached = "", False, False, node
    while (user := only_user(reached)) is not None:
        module = model.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            return (
                LayerPair(first, norm, str(user.target), is_clipped)
                if _fits(module, conv.out_channels, is_flat)
                else None
            )
        if isinstance(module, nn.BatchNorm2d) and reached is node and can_fold(module):
            norm = str(user.target)
            module = getattr(module, "act", nn.Identity())  # of timm's BatchNormAct2d
        is_clip = type(module) is nn.ReLU6 or user.target is F.relu6
        if flattens(user, module):
            is_flat = True
        elif not (is_clip or type(module) in HOMOGENEOUS_MODULES or _is_homogeneous(user)):
            return None
        is_clipped |= is_clip
        reached = user
    return None


def _fits(module: nn.Conv2d | nn.Linear, channels: int, is_flat: bool) -> bool:
    if isinstance(module, nn.Linear):
        return is_flat and module.in_features == channels
    return module.in_channels == channels and not is_flat and (module.groups == 1 or is_depthwise(module))


def _is_homogeneous(node: fx.Node) -> bool:
    is_function = node.op == "call_function" and node.target in HOMOGENEOUS_FUNCTIONS
    return is_function or (node.op == "call_method" and node.target in HOMOGENEOUS_METHODS)


def equalize(model: nn.Module, pairs: list[LayerPair], batches: Iterable[Tensor]) -> None:
    """Scale the channels between the layers of each pair, in place; outputs are equal on the images, up to rounding.

    Channels that ReLU6 clips keep their scale, and no other reaches the clip on these images.

    Args:
        model: Network in evaluation mode.
        pairs: Pairs of layers that ``find_pairs`` found.
        batches: Images, (N, C, H, W) each.
    """
    largest = _largest_inputs(model, [pair.second for pair in pairs], batches)
    for pair in pairs:
        values = largest[pair.second]  # still valid: earlier pairs scaled only their own channels
        second = model.get_submodule(pair.second)
        assert isinstance(second, nn.Conv2d | nn.Linear)
        scale = _factors(values, second)
        if pair.is_clipped:
            scale = scale.maximum(values / (MARGIN * CLIP)).where(values < MARGIN * CLIP, 1.0)
        _divide(model, pair, scale)


def _factors(values: Tensor, second: nn.Conv2d | nn.Linear) -> Tensor:
    """Return the factors that divide the channels of a map, (C,), whose largest absolute values are given."""
    scale = (values / values.max().clamp(min=1e-12)).clamp(min=1e-12).sqrt()
    if not (isinstance(second, nn.Conv2d) and is_depthwise(second)):  # depthwise weights have a scale for each channel
        weight = second.weight.detach().transpose(0, 1).flatten(1).abs().amax(1)
        scale = scale / (weight / weight.max().clamp(min=1e-12)).clamp(min=1e-12).sqrt()
    return torch.where(values > 0, scale.clamp(1 / LARGEST, LARGEST), 1.0)


@torch.no_grad()
def _divide(model: nn.Module, pair: LayerPair, scale: Tensor) -> None:
    first, second = model.get_submodule(pair.norm or pair.first), model.get_submodule(pair.second)
    assert isinstance(first, nn.Conv2d | nn.BatchNorm2d)
    assert isinstance(second, nn.Conv2d | nn.Linear)
    first.weight.div_(scale.reshape(-1, *[1] * (first.weight.dim() - 1)))
    if first.bias is not None:
        first.bias.div_(scale)
    is_by_channel = isinstance(second, nn.Conv2d) and is_depthwise(second)
    shape = (-1, *[1] * (second.weight.dim() - 1)) if is_by_channel else (1, -1, *[1] * (second.weight.dim() - 2))
    second.weight.mul_(scale.reshape(shape))


@torch.no_grad()
def _largest_inputs(model: nn.Module, names: list[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return for each layer the largest absolute value of each of its input channels, (C,)."""
    found: dict[str, Tensor] = {}

    def record(name: str, values: Tensor) -> None:
        largest = values.detach().abs().amax([axis for axis in range(values.dim()) if axis != 1])
        found[name] = largest if name not in found else found[name].maximum(largest)

    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: record(name, inputs[0]))
        for name in names
    ]
    with temporary_hooks(handles):
        for batch in batches:
            model(batch)
    return found
