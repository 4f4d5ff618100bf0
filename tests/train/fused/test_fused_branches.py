"""Fused branches of a RepConv against the ordinary layers under autograd."""

import copy

import pytest
import torch
from fused_comparison import (
    assert_equal,
    assert_graphs_match_the_layers,
    assert_repeatable,
    assert_second_derivative_raises,
    assert_unsupported_after,
    assert_variance_is_precise_for_large_means,
    errors,
    is_fused,
    results,
    saved_bytes,
    vary_norms,
)
from torch import Tensor, nn

from ghostnets.layers import GhostBottleneck, RepConv
from ghostnets.train.fused import branches as fused
from ghostnets.train.fused import fused_training

pytest.importorskip("ghostnets.train.fused._training", reason="the native module was not built")

#        in, out, kernel, stride, scale, skip, branches,  batch, height, width
CASES = {
    "expanding": (12, 40, 1, 1, True, False, 3, 3, 9, 11),
    "expanding, one branch": (5, 33, 1, 1, False, False, 1, 2, 3, 5),
    "narrowing": (60, 9, 1, 1, True, False, 3, 3, 9, 11),
    "narrowing, one pixel an image": (33, 7, 1, 1, False, False, 2, 5, 1, 1),
    "all branches": (20, 20, 3, 1, True, True, 3, 3, 9, 11),
    "many chunks": (150, 150, 3, 1, True, True, 2, 4, 5, 4),
    "identity alone": (9, 9, 3, 1, False, True, 3, 2, 7, 6),
    "no other": (17, 17, 5, 1, False, False, 2, 2, 6, 13),
    "wide kernel": (12, 12, 5, 1, True, True, 3, 2, 3, 8),
    "strided": (24, 24, 3, 2, True, False, 3, 2, 9, 8),
    "strided, wide kernel": (70, 70, 5, 2, True, False, 3, 2, 11, 14),
    "strided, one pixel": (16, 16, 5, 2, True, False, 3, 4, 2, 1),
    "one row": (16, 16, 3, 1, True, True, 3, 4, 1, 30),
}


def layer(case: str, dtype: torch.dtype) -> tuple[RepConv, Tensor]:
    c_in, c_out, kernel, stride, scale, skip, branches, batch, height, width = CASES[case]
    groups = 1 if kernel == 1 else c_in
    options = {"stride": stride, "groups": groups, "branches": branches, "scale": scale, "skip": skip}
    torch.manual_seed(0)
    module = RepConv(c_in, c_out, kernel, **options).to(dtype)
    vary_norms(module)
    return module, torch.randn(batch, c_in, height, width, dtype=dtype) + 0.3


@pytest.mark.usefixtures("isa", "threads")
@pytest.mark.parametrize("case", CASES)
def test_results_match_the_layers(case: str):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-4)):
        module, x = layer(case, dtype)
        assert_equal(results(module, x, fuse=True), results(module, x, fuse=False), tolerance)


@pytest.mark.parametrize("case", CASES)
def test_float32_error_is_comparable_to_the_layers(case: str):
    module, x = layer(case, torch.float32)
    fused_error, error = errors(module, x)
    assert fused_error < 3 * error + 1e-6


@pytest.mark.parametrize("case", ["expanding", "narrowing", "all branches", "strided, wide kernel"])
def test_gradient_matches_finite_differences(case: str):
    module, x = layer(case, torch.float64)
    with fused_training():
        assert torch.autograd.gradcheck(module, x[:, :, :4, :3].clone().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("case", ["expanding", "narrowing", "all branches"])
def test_variance_is_precise_for_large_means(case: str):
    module, x = layer(case, torch.float32)
    assert_variance_is_precise_for_large_means(module, x)


@pytest.mark.parametrize("case", ["expanding", "all branches"])
def test_backward_saves_less_memory(case: str):
    module, x = layer(case, torch.float32)
    assert saved_bytes(module, x, fuse=True) < 0.6 * saved_bytes(module, x, fuse=False)


@pytest.mark.parametrize("case", ["expanding", "narrowing", "strided"])
def test_results_are_repeatable_and_nan_propagates(case: str):
    module, x = layer(case, torch.float32)
    assert_repeatable(module, x)
    x[0, 0, 0, 0] = torch.nan
    got = results(module, x, fuse=True)
    assert got["output"].isnan().any()
    assert got["gradient of x"].isnan().any()


def test_backward_twice_and_modified_weight_error():
    for case in ("expanding", "narrowing", "all branches"):
        module, x = layer(case, torch.float64)
        x = x.requires_grad_() * 1
        with fused_training():
            out = module(x)
        expected = torch.autograd.grad(out.sum(), x, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(out.sum(), x, retain_graph=True), expected, rtol=0, atol=0)
        with torch.no_grad():
            module.convs[0][0].weight.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@pytest.mark.parametrize("case", ["expanding", "narrowing", "all branches"])
def test_gradients_have_the_strides_of_the_weights(case: str):
    """DistributedDataParallel keeps gradients as views of its buckets and requires that."""
    module, x = layer(case, torch.float32)
    module = module.to(memory_format=torch.channels_last)
    with fused_training():
        assert fused.is_supported(module, x)
        module(x).sum().backward()
    assert all(p.grad is not None and p.grad.stride() == p.stride() for p in module.parameters())


def test_second_derivative_raises():
    module, x = layer("all branches", torch.float32)
    assert_second_derivative_raises(module, x)


def test_fallback_conditions():
    module, x = layer("all branches", torch.float32)
    assert not is_fused(module(x))  # without the context
    with fused_training():
        assert fused.is_supported(module, x)
        assert not fused.is_supported(copy.deepcopy(module).eval(), x)
        assert not fused.is_supported(module, x.double())
        assert not fused.is_supported(module, x[:1, :, :1, :1])  # normalisation raises an error for a single value
        assert not fused.is_supported(module, x[:, :7])  # the layers raise the clearer error
        for change in (
            lambda m: m.convs[0].register_forward_hook(lambda *_: None),
            lambda m: m.skip.eval(),
            lambda m: setattr(m.skip, "track_running_stats", False),
            lambda m: nn.SyncBatchNorm.convert_sync_batchnorm(m),
        ):
            assert_unsupported_after(change, fused.is_supported, module, x)
        options = {"branches": 2, "scale": False, "skip": False}
        for other in (
            RepConv(20, 20, 3, **options),
            RepConv(20, 20, 3, groups=20, dilation=2, **options),
            RepConv(20, 20, 7, groups=20, **options),
            RepConv(20, 40, 3, groups=20, **options),
            RepConv(20, 20, 1, stride=2, **options),
            RepConv(20, 20, 1, **options | {"skip": True}),
        ):
            assert not fused.is_supported(other, x)


def test_compiled_graphs_match_the_layers():
    torch.manual_seed(0)
    module = GhostBottleneck(12, 40, 20, stride=2, branches=3, dfc=True)
    assert_graphs_match_the_layers(module, torch.randn(3, 12, 9, 8))
