"""A loss that is no number: where it comes from."""

import torch
from torch import Tensor, nn

__all__ = ["diagnose_loss"]


@torch.no_grad()
def diagnose_loss(model: nn.Module, inputs: Tensor) -> str:
    """Half a sentence on why the loss of these inputs is not finite: what is the first thing that is not.

    Args:
        model: The network as it was when the loss was computed; its statistics are not changed.
        inputs: What it was given.
    """
    if not inputs.isfinite().all():
        return "the images themselves hold numbers that are not finite"
    broken = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if broken:
        return (
            f"{len(broken)} weights are not finite any more, {broken[0]} among them, so the step before was too large"
        )
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
    kept = {name: tensor.clone() for name, tensor in model.named_buffers()}
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for name, tensor in model.named_buffers():
            tensor.copy_(kept[name])
    if first:
        return f"all weights are finite, but the output of {first[0]} is not"
    return "all weights and outputs are finite when computed once more, so the loss itself overflowed"
