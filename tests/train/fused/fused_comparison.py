"""Results of a module with and without the fused kernels: output, all gradients and all buffers."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostnets.train.fused import fused_training


def vary_norms(module: nn.Module) -> None:
    """Random gammas and betas."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)


def results(module: nn.Module, x: Tensor, *, fuse: bool) -> dict[str, Tensor]:
    """Return output, all gradients and all buffers of a copy of the module."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    with fused_training() if fuse else nullcontext():
        out = module(x)
    assert is_fused(out) == fuse
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype))
    gradients = {f"gradient of {name}": p.grad for name, p in module.named_parameters()}
    return {"output": out, "gradient of x": x.grad} | gradients | dict(module.named_buffers())


def is_fused(out: Tensor) -> bool:
    """Return whether an output was computed by the fused kernels."""
    return type(out.grad_fn).__name__ in ("_BottleneckBackward", "_SumOfBranchesBackward")


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    largest = max(v.abs().max().item() for name, v in expected.items() if name.startswith("gradient"))
    for name, value in expected.items():
        # A bias before a normalisation has gradient 0, so rounding is compared with the largest gradient too.
        scale = max(value.abs().max().item(), 0.01 * largest if name.startswith("gradient") else 0)
        assert (actual[name].double() - value.double()).abs().max().item() <= tolerance * scale, name


def errors(module: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the errors of the float32 gradients against float64: fused, and of the ordinary layers."""
    truth = results(copy.deepcopy(module).double(), x.double(), fuse=False)

    def error(values: dict[str, Tensor]) -> float:
        return sum((values[n].double() - truth[n]).abs().mean().item() for n in truth if n.startswith("gradient"))

    return error(results(module, x, fuse=True)), error(results(module, x, fuse=False))


def assert_variance_is_precise_for_large_means(module: nn.Module, x: Tensor) -> None:
    """Check that the output for inputs around 1000 is as precise as that of the ordinary layers."""
    fused, layers = (results(module, x + 1000, fuse=fuse)["output"] for fuse in (True, False))
    truth = results(copy.deepcopy(module).double(), x.double() + 1000, fuse=False)["output"]
    assert (fused - truth).abs().max() <= 3 * (layers - truth).abs().max()


def assert_repeatable(module: nn.Module, x: Tensor) -> None:
    """Check that two runs of the fused kernels give the same bits."""
    first, second = (results(module, x, fuse=True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_second_derivative_raises(module: nn.Module, x: Tensor) -> None:
    x.requires_grad_()
    with fused_training():
        (gradient,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def assert_graphs_match_the_layers(module: nn.Module, x: Tensor) -> None:
    """Check that scripting, export and compilation within ``fused_training`` keep the output."""
    expected = copy.deepcopy(module)(x)
    with fused_training():
        for graph in (
            torch.jit.script(copy.deepcopy(module)),
            torch.export.export(copy.deepcopy(module), (x,)).module(),
            torch.compile(copy.deepcopy(module), fullgraph=True, backend="eager"),
        ):
            torch.testing.assert_close(graph(x), expected)


def assert_unsupported_after(
    change: Callable[[Any], object], is_supported: Callable[[Any, Tensor], bool], module: nn.Module, x: Tensor
) -> None:
    """Check that a changed copy of the module is left to the ordinary layers."""
    other = copy.deepcopy(module)
    change(other)
    assert not is_supported(other, x)


def saved_bytes(module: nn.Module, x: Tensor, *, fuse: bool) -> int:
    """Return the bytes that are saved for the backward pass."""
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
