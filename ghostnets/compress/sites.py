"""Convolutions of a network that can be compressed, and what surrounds each of them, from its graph."""

import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ghostnets.compress.network_io import flatten_outputs
from ghostnets.layers import DFCGate, GhostConv2d, GhostModule, RepConv
from ghostnets.layers.copying import copy_module

__all__ = [
    "LEAVES",
    "ConvTracer",
    "ImageTracer",
    "Site",
    "can_fold",
    "find_sites",
    "flattens",
    "has_hooks",
    "has_own_weights",
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


class ImageTracer(fx.Tracer):
    """Traces a network as it runs on images alone: further arguments have their defaults, and are no inputs.

    What the network's code stores in its modules meanwhile stays out of it: a copy with the same tensors is traced.
    Tensors that its code makes are constants of the graph, ``node.meta["constant"]``.
    """

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        assert isinstance(root, nn.Module)
        copied = copy_module(root, {id(tensor): tensor for tensor in (*root.parameters(), *root.buffers())})
        graph = super().trace(copied, concrete_args)
        for node in graph.nodes:
            if node.op == "get_attr" and node.target in copied.__dict__ and node.target not in root.__dict__:
                node.meta["constant"] = copied.__dict__[node.target]
        return graph

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        _, images, *_ = inspect.signature(root_fn).parameters
        return root_fn, [self.root, self.create_proxy("placeholder", images, (), {})]


class ConvTracer(ImageTracer):
    """Traces with convolutions, normalisations and Ghost modules of any class as single nodes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or is_ghost(m) or super().is_leaf_module(m, module_qualified_name)


def find_sites(model: nn.Module, graph: fx.Graph | None) -> list[Site]:
    """Find the convolutions of a network, in order of execution where its graph is known.

    Args:
        model: Any network, in evaluation mode.
        graph: Its graph, of ``trace``; without it, each convolution is a site by itself.
    """
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if graph is None:
        return [Site(name) for name in convs]
    runs = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    runs.update(str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr")  # uses of weights
    sites = [
        _site(model, node, runs)
        for node in graph.nodes
        if node.op == "call_module" and node.target in convs and runs[node.target] == 1
    ]
    seen = {site.conv for site in sites}
    return sites + [Site(name) for name in convs if name not in seen]


def trace(model: nn.Module, x: Tensor | None = None) -> tuple[fx.Graph | None, str]:
    """Return the graph of a network, or the reason why ``torch.fx`` cannot trace it.

    Args:
        model: Network in evaluation mode.
        x: Images on which the graph must compute what the network does. Code that asks whether its input is a tensor,
            for one, takes another way while it is traced.
    """
    try:
        graph = ConvTracer().trace(model)
        is_right = x is None or _computes_the_same(model, graph, x)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else error
        return None, f"torch.fx cannot trace {type(model).__name__}: {reason}"
    return (
        (graph, "") if is_right else (None, f"torch.fx traces another computation than that of {type(model).__name__}")
    )


class _Interpreter(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        return n.meta["constant"].clone() if "constant" in n.meta else super().run_node(n)


@torch.no_grad()
def _computes_the_same(model: nn.Module, graph: fx.Graph, x: Tensor) -> bool:
    expected, got = flatten_outputs(model(x)), flatten_outputs(_Interpreter(model, graph=graph).run(x))
    tolerance = 1e-3 * float(expected.abs().max())
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-3, atol=tolerance)


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
        if isinstance(module, nn.BatchNorm2d) and can_fold(module) and not has_hooks(module):
            norm = str(user.target)
            inner = getattr(module, "act", None)  # of timm's BatchNormAct2d
            if isinstance(inner, nn.Module) and not isinstance(inner, nn.Identity):
                return norm, IDEMPOTENT_MODULES.get(type(inner), "")
            user = only_user(user)
    if user is not None and user.op == "call_module":
        module = model.get_submodule(str(user.target))
        act = "" if has_hooks(module) else IDEMPOTENT_MODULES.get(type(module), "")
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
            if has_hooks(module):
                return "", ()
            if isinstance(module, nn.Conv2d) and not is_depthwise(module):
                fits = is_single and module.groups == 1 and module.in_channels == channels and not is_flat
                return (name, tuple(chain)) if fits and has_own_weights(module) else ("", ())
            if isinstance(module, nn.Linear):
                fits = is_single and is_flat and module.in_features == channels
                return (name, tuple(chain)) if fits and has_own_weights(module) else ("", ())
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.BatchNorm2d) and can_fold(module)):
                is_channelwise = type(getattr(module, "act", nn.Identity())) in CHANNELWISE_MODULES
                if not (is_single and is_channelwise and has_own_weights(module)):
                    return "", ()
                chain.append(name)
            elif flattens(user, module):
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


def flattens(node: fx.Node, module: nn.Module | None = None) -> bool:
    """Return whether a node, of a module or of none, turns (N, C, 1, 1) or (N, C, H, W) into (N, C) or (N, C H W)."""
    if isinstance(module, nn.Flatten):
        return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    arguments: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
    if node.target in (torch.flatten, "flatten"):
        bound = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False))
        return {"start_dim": 0, "end_dim": -1, **bound, **node.kwargs} == {"start_dim": 1, "end_dim": -1}
    if node.target in ("view", "reshape"):
        return len(arguments) == 2 and arguments[1] == -1 and _reads_axis(arguments[0]) == 0
    if node.target in (torch.mean, "mean"):
        axes = arguments[0] if len(arguments) == 1 else ()
        return isinstance(axes, tuple | list) and sorted(a % 4 for a in axes if isinstance(a, int)) == [2, 3]
    return False


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads a node's values or its number of channels."""
    users = [user for user in node.users if not _reads_other_sizes(user)]
    if len(users) != 1:
        return None
    (user,) = users
    is_passed_by_name = user.op == "call_module" and not user.args
    return user if not is_passed_by_name and _first_argument(user) is node else None


def _reads_other_sizes(node: fx.Node) -> bool:
    """Return whether a node reads what the number of channels does not change: other sizes, number of axes, dtype."""
    is_attribute = node.op == "call_function" and node.target is getattr
    if node.target == "dim" or (is_attribute and node.args[1] in ("ndim", "dtype", "device")):
        return True
    if _is_shape(node):
        return all(_reads_other_axes(user) for user in node.users)
    return node.target == "size" and _reads_other_axes(node)


def _is_shape(node: fx.Node) -> bool:
    """Return whether a node reads the sizes of all axes."""
    is_attribute = node.op == "call_function" and node.target is getattr and node.args[1] in ("shape",)
    return is_attribute or (node.target == "size" and len(node.args) == 1 and not node.kwargs)


def _reads_other_axes(node: fx.Node) -> bool:
    """Return whether a node takes sizes of other axes than that of channels, or takes it and nothing reads it."""
    axis = _axis(node)
    if isinstance(axis, slice):
        is_known = all(value is None or isinstance(value, int) for value in (axis.start, axis.stop, axis.step))
        return is_known and 1 not in range(4)[axis]
    return type(axis) is int and (axis not in (1, -3) or not node.users)


def _axis(node: fx.Node) -> Any:
    """Return the axis or the slice of axes whose sizes a node takes, or None if it does something else."""
    is_item = node.op == "call_function" and node.target is operator.getitem
    if not is_item and node.target != "size":
        return None
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")


def _reads_axis(value: Any) -> int | None:
    """Return the axis of maps whose size a value is, or None if it is something else."""
    if not isinstance(value, fx.Node):
        return None
    source = value.args[0] if value.args else None
    is_of_shape = value.target == "size" or (isinstance(source, fx.Node) and _is_shape(source))
    axis = _axis(value) if is_of_shape else None
    return axis if isinstance(axis, int) else None


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


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module or one inside it runs other code with its ``forward``, or another one than its class."""
    return any(each._forward_hooks or each._forward_pre_hooks or "forward" in vars(each) for each in module.modules())


def has_own_weights(layer: nn.Module) -> bool:
    """Return whether weight and bias of a layer are its parameters, not computed from others, as pruning does."""
    return layer._parameters.get("weight") is not None and "bias" in layer._parameters


def can_fold(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    """Return whether a normalisation has what folding needs: weights, running statistics, and no code of its own.

    A subclass may have an activation, ``act``, that follows, as timm's; it is run on a sample.
    """
    if not has_own_weights(norm) or norm.bias is None or norm.running_mean is None or norm.running_var is None:
        return False
    return type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) or _normalises(norm)


@torch.no_grad()
def _normalises(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    """Return whether a batch normalisation of any class computes the same as its base class, and ``act`` after it."""
    copied = copy_module(norm).eval()
    act = getattr(copied, "act", None)
    x = torch.linspace(-2, 2, 2 * norm.num_features, device=norm.weight.device, dtype=norm.weight.dtype)
    x = x.view(2, -1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else x.view(2, -1)
    got = copied(x)
    if x.is_meta:  # no values to compare
        return True
    expected = F.batch_norm(x, copied.running_mean, copied.running_var, copied.weight, copied.bias, eps=copied.eps)
    expected = act(expected) if isinstance(act, nn.Module) else expected
    return torch.allclose(got, expected, rtol=1e-3, atol=1e-3, equal_nan=True)
