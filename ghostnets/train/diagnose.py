"""Diagnosis of a non-finite loss."""

import torch
from torch import Tensor, nn

__all__ = ["diagnose_loss"]


@torch.no_grad()
def diagnose_loss(model: nn.Module, inputs: Tensor) -> str:
    """Find the first non-finite value that explains a non-finite loss.

    Args:
        model: Network, with the weights that gave the loss; its running statistics are not changed.
        inputs: Inputs that gave the loss: normalised images, (N, C, H, W), or features, (N, C).

    Returns:
        A clause without full stop, for an error message.
    """
    if not inputs.isfinite().all():
        return "the images themselves contain non-finite values"
    broken = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if broken:
        return f"{len(broken)} weights are no longer finite, {broken[0]} among them: the previous step was too large"
    first: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: (
                first.append(name) if isinstance(output, Tensor) and not output.isfinite().all() else None
            )
        )
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    saved = {name: tensor.clone() for name, tensor in model.named_buffers()}
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for name, tensor in model.named_buffers():
            tensor.copy_(saved[name])
    if first:
        return f"all weights are finite, but the output of {first[0]} is not"
    return "all weights and outputs are finite when recomputed, so the loss itself overflowed"
