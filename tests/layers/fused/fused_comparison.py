"""What a module gives with and without the fused kernels: its output, all gradients and all buffers."""

import copy

import torch
from torch import Tensor, nn

from ghostnets.layers import fused_training


def results(module: nn.Module, x: Tensor, *, fuse: bool) -> dict[str, Tensor]:
    """Output, all gradients and all buffers of a copy of the module."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    if fuse:
        with fused_training():
            out = module(x)
        assert type(out.grad_fn).__name__ in ("_BottleneckBackward", "_SumOfBranchesBackward")
    else:
        out = module(x)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype))
    gradients = {f"gradient of {name}": p.grad for name, p in module.named_parameters()}
    return {"output": out, "gradient of x": x.grad} | gradients | dict(module.named_buffers())


def assert_equal(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    largest = max(v.abs().max().item() for name, v in wanted.items() if name.startswith("gradient"))
    for name, value in wanted.items():
        # A bias before a normalisation has the gradient 0, so rounding is held against the largest gradient too.
        scale = max(value.abs().max().item(), 0.01 * largest if name.startswith("gradient") else 0)
        assert (got[name].double() - value.double()).abs().max().item() <= tolerance * scale, name
