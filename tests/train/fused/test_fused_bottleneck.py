"""Fused bottlenecks against the ordinary layers under autograd."""

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

from ghostnets.layers import GhostBottleneck
from ghostnets.models import create_model
from ghostnets.train.fused import bottleneck as fused
from ghostnets.train.fused import fused_training

pytest.importorskip("ghostnets.train.fused._training", reason="the native module was not built")

#        in, hidden, out, kernel, stride, se,  batch, height, width
CASES = {
    "plain": (16, 24, 16, 3, 1, 0, 2, 9, 11),
    "narrow": (8, 12, 12, 3, 1, 0, 3, 5, 4),
    "odd channels": (7, 26, 10, 5, 2, 0.25, 2, 7, 9),
    "strided": (16, 48, 24, 3, 2, 0, 3, 10, 13),
    "strided, gated": (12, 72, 20, 5, 2, 0.25, 3, 15, 12),
    "gated": (20, 120, 20, 5, 1, 0.25, 5, 7, 7),
    "gated, one row": (24, 40, 24, 3, 1, 0.25, 5, 1, 2),
    "many chunks": (24, 300, 24, 3, 1, 0.25, 9, 2, 2),
    "batch 1": (12, 40, 16, 3, 1, 0, 1, 31, 17),
    "strided, one pixel": (20, 52, 20, 5, 2, 0.25, 4, 2, 1),
}


def block(case: str, dtype: torch.dtype, **options: int) -> tuple[GhostBottleneck, Tensor]:
    c_in, hidden, c_out, kernel, stride, se, batch, height, width = CASES[case]
    torch.manual_seed(0)
    module = GhostBottleneck(c_in, hidden, c_out, kernel_size=kernel, stride=stride, se_ratio=se, **options).to(dtype)
    vary_norms(module)
    return module, torch.randn(batch, c_in, height, width, dtype=dtype) + 0.3


@pytest.mark.usefixtures("isa", "threads")
@pytest.mark.parametrize("case", CASES)
def test_results_match_the_layers(case: str):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-3)):
        module, x = block(case, dtype)
        assert_equal(results(module, x, fuse=True), results(module, x, fuse=False), tolerance)


@pytest.mark.parametrize("case", CASES)
def test_float32_error_is_comparable_to_the_layers(case: str):
    module, x = block(case, torch.float32)
    truth = results(copy.deepcopy(module).double(), x.double(), fuse=False)
    assert_equal(results(module, x, fuse=True), truth, 2e-3)
    fused_error, error = errors(module, x)
    assert fused_error < 3 * error + 1e-6


@pytest.mark.parametrize("case", ["narrow", "odd channels"])
def test_gradient_matches_finite_differences(case: str):
    module, x = block(case, torch.float64)
    module(x)  # gradcheck runs the module many times: its numbers do not depend on the running statistics
    with fused_training():
        assert torch.autograd.gradcheck(module, x[:, :, :4, :3].clone().requires_grad_(), fast_mode=True)


def test_variance_is_precise_for_large_means():
    module, x = block("plain", torch.float32)
    assert_variance_is_precise_for_large_means(module, x)


def test_results_are_repeatable():
    module, x = block("strided, gated", torch.float32)
    assert_repeatable(module, x)


def test_input_without_gradient_and_no_grad_mode():
    module, x = block("gated", torch.float64)
    expected = results(module, x, fuse=False)
    with fused_training():
        plain, frozen = copy.deepcopy(module), copy.deepcopy(module)
        with torch.no_grad():
            out = frozen(x)
        torch.testing.assert_close(out, expected["output"])
        assert out.grad_fn is None
        plain(x).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())
    for name, buffer in frozen.named_buffers():
        torch.testing.assert_close(buffer, expected[name])


def test_nan_propagates():
    module, x = block("gated", torch.float32)
    x[0, 0, 0, 0] = torch.nan
    got, expected = results(module, x, fuse=True), results(module, x, fuse=False)
    for name in expected:
        assert got[name].isnan().sum() == expected[name].isnan().sum() or not name.startswith(
            ("output", "gradient of x")
        )
    assert got["output"].isnan().any()
    assert got["gradient of x"].isnan().any()


def test_backward_saves_less_memory():
    module, x = block("strided", torch.float32)
    assert saved_bytes(module, x, fuse=True) < 0.6 * saved_bytes(module, x, fuse=False)


def test_modified_weight_raises_in_backward():
    module, x = block("plain", torch.float32)
    with fused_training():
        out = module(x)
    with torch.no_grad():
        module.ghost1.primary_conv[0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_second_derivative_raises():
    module, x = block("plain", torch.float32)
    assert_second_derivative_raises(module, x)


def test_fallback_conditions():
    module, x = block("gated", torch.float32)
    assert not is_fused(module(x))  # without the context
    with fused_training():
        assert fused.is_supported(module, x)
        assert not fused.is_supported(copy.deepcopy(module).eval(), x)
        assert not fused.is_supported(module, x.half())
        assert not fused.is_supported(module, nn.Parameter(x))
        assert not fused.is_supported(module, x[:1, :, :1, :1])  # normalisation raises an error for a single value
        for channels in (12, 28):  # the kernels would read beyond the weights, or the map
            assert not fused.is_supported(module, torch.randn(5, channels, 7, 7))
        with torch.autocast("cpu", torch.bfloat16):
            assert not fused.is_supported(module, x)
        for change in (
            lambda m: m.ghost1.register_forward_hook(lambda *_: None),
            lambda m: m.ghost1.register_full_backward_hook(lambda *_: None),
            lambda m: m.ghost1.register_full_backward_pre_hook(lambda *_: None),
            lambda m: m.ghost1.cheap_operation[1].eval(),
            lambda m: setattr(m.ghost1.cheap_operation[1], "track_running_stats", False),
            lambda m: nn.SyncBatchNorm.convert_sync_batchnorm(m.ghost2),
            lambda m: m.double(),
            lambda m: m.ghost1.primary_conv.__setitem__(2, nn.LeakyReLU(0.1)),
            lambda m: m.ghost1.cheap_operation.__setitem__(2, nn.LeakyReLU(0.1)),
            lambda m: m.ghost2.primary_conv.__setitem__(2, nn.ReLU()),
            lambda m: setattr(m.se, "act1", nn.SiLU()),
        ):
            assert_unsupported_after(change, fused.is_supported, module, x)
        for options in ({"ratio": 3}, {"ratio": 1}, {"cheap_kernel_size": 7}, {"dilation": 2}, {"dfc": True}):
            assert not fused.is_supported(block("gated", torch.float32, **options)[0], x)
        assert not fused.is_supported(block("gated", torch.float32, branches=2)[0], x)
        assert not fused.is_supported(GhostBottleneck(20, 40, 20, drop_path_rate=0.1), x)
    assert not is_fused(module(x))


def test_compiled_graphs_match_the_layers():
    module, x = block("strided, gated", torch.float32)
    assert_graphs_match_the_layers(module, x)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv3_050"])
def test_recomputed_blocks_match_stored_ones(name: str):
    """The backward pass is outside of the context, as in the documents."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, drop_rate=0.0).double()
    x, gradients = torch.randn(3, 3, 40, 56, dtype=torch.float64), []
    for recomputes in (True, False):
        other = copy.deepcopy(model)
        other.set_grad_checkpointing(recomputes)
        with fused_training():
            loss = other(x).square().sum()
        loss.backward()
        gradients.append([*(p.grad for p in other.parameters()), *other.buffers()])
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_100", "ghostnetv3_100"])
def test_network_gradients_match_the_layers(name: str):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, drop_rate=0.0).double()
    x = torch.randn(3, 3, 40, 56, dtype=torch.float64)
    gradients = []
    for fuse in (True, False):
        one = copy.deepcopy(model)
        if fuse:
            with fused_training():
                out = one(x)
        else:
            out = one(x)
        out.square().sum().backward()
        gradients.append({n: p.grad for n, p in one.named_parameters()} | {"output": out})
    for n, value in gradients[1].items():
        torch.testing.assert_close(gradients[0][n], value, rtol=1e-6, atol=1e-8)
