"""When the fused kernels of training may be taken: the switch, and what holds for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

__all__ = ["fused_training", "has_hooks", "is_plain_norm", "may_fuse"]

_is_on = False


@contextmanager
def fused_training() -> Iterator[None]:
    """Within it, Ghost bottlenecks and re-parameterisable convolutions are trained by fused kernels, where they can be.

    They can where the native part was built, normalisations are in training mode, no module in them has a hook, and the
    input is float32 or float64 on the CPU, outside of autocast, tracing and compilation. A bottleneck must be that of
    GhostNet V1 (ratio 2, cheap kernels of 3 or 5, no dilation, no stochastic depth); a ``RepConv``, as in GhostNetV3,
    1 x 1 or depthwise with a kernel of 3 or 5, without dilation. Anything else takes the ordinary way. Results are the
    same up to rounding. Second derivatives cannot be taken.
    """
    global _is_on
    before, _is_on = _is_on, find_spec("ghostnets.layers._training") is not None
    try:
        yield
    finally:
        _is_on = before


def may_fuse(module: nn.Module, x: Tensor) -> bool:
    """Whether nothing stands against fusing this module, but perhaps what it is made of and its hooks."""
    if torch.compiler.is_compiling() or not _is_on or not module.training or type(x) is not Tensor:
        return False
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.dim() != 4:
        return False
    is_traced = torch._C._get_tracing_state() or torch._C._are_functorch_transforms_active()
    return not is_traced and not torch.is_autocast_enabled("cpu")


def has_hooks(module: nn.Module) -> bool:
    """Whether a module within this one has a hook, which would not be called."""
    return any(
        child._forward_hooks or child._forward_pre_hooks or child._backward_hooks or has_hooks(child)
        for child in module._modules.values()
        if child is not None
    )


def is_plain_norm(norm: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the kernels know such a normalisation: in training, with weights and running statistics of this type."""
    if type(norm) is not nn.BatchNorm2d or not norm.training or norm.momentum is None:
        return False
    if not norm.affine or not norm.track_running_stats:
        return False
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return all(t is not None and t.dtype == dtype and t.is_contiguous() for t in tensors)
