"""Convolutions of a network that can be compressed, and what surrounds each of them, from its graph."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ghostnets.layers import DFCGate, GhostConv2d, GhostModule, RepConv

__all__ = [
    "LEAVES",
    "ConvTracer",
    "Site",
    "can_fold",
    "find_sites",
    "flattens",
    "is_depthwise",
    "is_ghost",
    "only_user",
    "trace",
]

LEAVES = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
# Applied to each channel independently, so that a zero channel does not affect the others.
CHANNELWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d),
)
CHANNELWISE_FUNCTIONS = {
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh),
    *(F.dropout, F.dropout2d, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh),
}
CHANNELWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous"}
IDEMPOTENT_FUNCTIONS = {F.relu: "relu", F.relu6: "relu6", torch.relu: "relu", torch.relu_: "relu"}
IDEMPOTENT_MODULES = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


@dataclass(frozen=True)
class Site:
    """A convolution with what directly follows it.

    Attributes:
        conv: Name of the convolution.
        norm: Name of the batch normalisation that is its only reader, or "".
        act: Activation that alone reads these: ``"relu"`` or ``"relu6"``, which may be applied twice, or "".
        consumer: Name of the only convolution or linear layer that reads its maps, through ``chain`` and layers without
            parameters; or "".
        chain: Names of the batch normalisations and depthwise convolutions on the way to the consumer.
    """

    conv: str
    norm: str = ""
    act: str = ""
    consumer: str = ""
    chain: tuple[str, ...] = ()


class ConvTracer(fx.Tracer):
    """Traces with convolutions, normalisations and Ghost modules of any class as single nodes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or is_ghost(m) or super().is_leaf_module(m, module_qualified_name)


def find_sites(model: nn.Module) -> tuple[list[Site], str]:
    """Find the convolutions of a network, in order of execution where the network can be traced.

    Args:
        model: Any network, in evaluation mode.

    Returns:
        The sites; and why the surroundings are unknown, if ``torch.fx`` cannot trace the network: each convolution is
        then a site by itself.
    """
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    graph, reason = trace(model)
    if graph is None:
        return [Site(name) for name in convs], reason
    runs = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    sites = [
        _site(model, node, runs)
        for node in graph.nodes
        if node.op == "call_module" and node.target in convs and runs[node.target] == 1 and node.target not in read
    ]
    seen = {site.conv for site in sites}
    return sites + [Site(name) for name in convs if name not in seen], ""


def trace(model: nn.Module) -> tuple[fx.Graph | None, str]:
    """Return the graph of a network, or the reason why ``torch.fx`` cannot trace it."""
    try:
        return ConvTracer().trace(model), ""
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else error
        return None, f"torch.fx cannot trace {type(model).__name__}: {reason}"


def _site(model: nn.Module, node: fx.Node, runs: Counter[str]) -> Site:
    norm, act = _followers(model, node, runs)
    consumer, chain = _consumer(model, node, runs)
    return Site(str(node.target), norm, act, consumer, chain)


def _followers(model: nn.Module, node: fx.Node, runs: Counter[str]) -> tuple[str, str]:
    """Return the normalisation and the idempotent activation that are the only readers of a convolution."""
    norm, act = "", ""
    user = only_user(node)
    if user is not None and user.op == "call_module" and runs[str(user.target)] == 1:
        module = model.get_submodule(str(user.target))
        if isinstance(module, nn.BatchNorm2d) and can_fold(module):
            norm = str(user.target)
            inner = getattr(module, "act", None)  # of timm's BatchNormAct2d
            if isinstance(inner, nn.Module) and not isinstance(inner, nn.Identity):
                return norm, IDEMPOTENT_MODULES.get(type(inner), "")
            user = only_user(user)
    if user is not None and user.op == "call_module":
        act = IDEMPOTENT_MODULES.get(type(model.get_submodule(str(user.target))), "")
    elif user is not None and user.op == "call_function":
        act = IDEMPOTENT_FUNCTIONS.get(user.target, "")  # type: ignore[arg-type]
    elif user is not None and user.op == "call_method" and user.target in ("relu", "relu_"):
        act = "relu"
    return norm, act


def _consumer(model: nn.Module, node: fx.Node, runs: Counter[str]) -> tuple[str, tuple[str, ...]]:
    """Return the only layer that mixes the maps of a convolution, and the layers with parameters before it."""
    channels = model.get_submodule(str(node.target)).out_channels
    chain: list[str] = []
    is_flat, reached = False, node
    while (user := only_user(reached)) is not None:
        if user.op == "call_module":
            name, module = str(user.target), model.get_submodule(str(user.target))
            is_single = runs[name] == 1
            if isinstance(module, nn.Conv2d) and not is_depthwise(module):
                fits = is_single and module.groups == 1 and module.in_channels == channels and not is_flat
                return (name, tuple(chain)) if fits else ("", ())
            if isinstance(module, nn.Linear):
                fits = is_single and is_flat and module.in_features == channels
                return (name, tuple(chain)) if fits else ("", ())
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.BatchNorm2d) and can_fold(module)):
                if not is_single or type(getattr(module, "act", nn.Identity())) not in CHANNELWISE_MODULES:
                    return "", ()
                chain.append(name)
            elif isinstance(module, nn.Flatten) and module.start_dim == 1:
                is_flat = True
            elif type(module) not in CHANNELWISE_MODULES:
                return "", ()
        elif flattens(user):
            is_flat = True
        elif not _is_channelwise(user):
            return "", ()
        reached = user
    return "", ()


def _is_channelwise(node: fx.Node) -> bool:
    is_function = node.op == "call_function" and node.target in CHANNELWISE_FUNCTIONS
    return is_function or (node.op == "call_method" and node.target in CHANNELWISE_METHODS)


def flattens(node: fx.Node) -> bool:
    """Return whether a node turns (N, C, 1, 1) or (N, C, H, W) into (N, C) or (N, C H W)."""
    arguments: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
    if node.target in (torch.flatten, "flatten"):
        return bool(arguments) and arguments[0] == 1
    if node.target in ("view", "reshape"):
        return len(arguments) == 2 and arguments[1] == -1
    if node.target in (torch.mean, "mean"):
        axes = arguments[0] if len(arguments) == 1 else ()
        return isinstance(axes, tuple | list) and sorted(a % 4 for a in axes if isinstance(a, int)) == [2, 3]
    return False


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads a node's values, apart from its shape."""
    users = [user for user in node.users if not _reads_shape(user)]
    return users[0] if len(users) == 1 and _first_argument(users[0]) is node else None


def _reads_shape(node: fx.Node) -> bool:
    is_attribute = node.op == "call_function" and node.target is getattr
    return node.target in ("size", "dim") or (is_attribute and node.args[1] in ("shape", "ndim", "dtype", "device"))


def _first_argument(node: fx.Node) -> Any:
    values: Iterator[Any] = iter((*node.args, *node.kwargs.values()))
    return next(values, None)


def is_ghost(module: nn.Module) -> bool:
    """Return whether a module is a Ghost module, or has branches or a gate; its convolutions are not changed."""
    if isinstance(module, GhostModule):  # without ghosts it is a plain convolution
        return module.has_ghosts or module.short_conv is not None
    return isinstance(module, GhostConv2d | RepConv | DFCGate)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether each output channel of a convolution reads the input channel of the same number alone."""
    return conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1


def can_fold(norm: nn.BatchNorm2d) -> bool:
    """Return whether a normalisation has what folding needs: weights and running statistics."""
    return bool(norm.affine) and norm.running_mean is not None and norm.running_var is not None
