"""Conditions that every module and input must meet to be run by the fused kernels."""

import torch
from torch import Tensor, nn

__all__ = ["has_hooks", "is_supported_call", "is_supported_norm"]


def is_supported_call(module: nn.Module, x: Tensor) -> bool:
    """Return whether mode, device, dtype and tracing state allow fusion; structure and hooks are checked elsewhere."""
    if not module.training or type(x) is not Tensor:
        return False
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.dim() != 4:
        return False
    is_traced = torch._C._get_tracing_state() or torch._C._are_functorch_transforms_active()
    return not is_traced and not torch.is_autocast_enabled("cpu")


def has_hooks(module: nn.Module) -> bool:
    """Return whether a submodule has a hook, which a fused step would not call."""
    return any(
        child._forward_hooks
        or child._forward_pre_hooks
        or child._backward_hooks
        or child._backward_pre_hooks
        or has_hooks(child)
        for child in module._modules.values()
        if child is not None
    )


def is_supported_norm(norm: nn.Module, dtype: torch.dtype) -> bool:
    """Return whether the kernels support a normalisation: in training, affine, with running statistics of ``dtype``."""
    if type(norm) is not nn.BatchNorm2d or not norm.training or norm.momentum is None:
        return False
    if not norm.affine or not norm.track_running_stats:
        return False
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return all(t is not None and t.dtype == dtype and t.is_contiguous() for t in tensors)
