"""What a module gives with and without the fused kernels: its output, all gradients and all buffers."""

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ghostnets.layers import fused_training


def vary_norms(module: nn.Module) -> None:
    """Random gammas and betas."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)


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


def errors(module: nn.Module, x: Tensor) -> tuple[float, float]:
    """Of the gradients in float32 against float64: fused, and of the layers."""
    truth = results(copy.deepcopy(module).double(), x.double(), fuse=False)

    def error(values: dict[str, Tensor]) -> float:
        return sum((values[n].double() - truth[n]).abs().mean().item() for n in truth if n.startswith("gradient"))

    return error(results(module, x, fuse=True)), error(results(module, x, fuse=False))


def assert_a_large_mean_takes_no_digits(module: nn.Module, x: Tensor) -> None:
    """From the variance, and so from the output."""
    got, wanted = (results(module, x + 1000, fuse=fuse)["output"] for fuse in (True, False))
    truth = results(copy.deepcopy(module).double(), x.double() + 1000, fuse=False)["output"]
    assert (got - truth).abs().max() <= 3 * (wanted - truth).abs().max()


def kept(module: nn.Module, x: Tensor, *, fuse: bool) -> int:
    """Bytes that are kept for the way back."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        fused_training() if fuse else nullcontext(),
    ):
        out = copy.deepcopy(module)(x.clone().requires_grad_())
    assert out.grad_fn is not None
    return sum(storages.values())
