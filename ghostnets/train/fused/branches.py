"""The branches of a ``RepConv`` as one autograd function, for training on a CPU.

The output z_f of a branch is linear in the input, and its normalisation needs two numbers per channel. Once these are
known, all branches are one convolution, in training as in inference; the branches' maps are stored only if there are
few output channels. With P pixels and r_f = 1 / deviation of z_f::

    out  = sum over f of  s_f (z_f - mean z_f) + beta_f                 s_f = gamma_f r_f
    dz_f = s_f (d - mean d) + slope_f (z_f - mean z_f)                  slope_f = -s_f r_f^2 q_f / P
                                                                        q_f = sum of d (z_f - mean z_f)

and the gradient of the input is that of the one convolution, plus the branches' terms in slope_f.
``docs/training_speed.md`` has the measurements.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ghostnets.layers import RepConv
from ghostnets.train.fused.branch_strategies import strategy_for
from ghostnets.train.fused.support import has_hooks, is_supported_call, is_supported_norm

__all__ = ["forward", "is_supported"]


def forward(module: nn.Module, x: Tensor, /) -> Tensor | None:
    """Return the output of a ``RepConv``, (N, C_out, H', W'), channels last in memory; None if unsupported."""
    assert isinstance(module, RepConv)
    if not is_supported(module, x):
        return None
    norms = _norms(module)
    parameters = [conv.weight for conv in _convolutions(module)] + [n.weight for n in norms] + [n.bias for n in norms]
    out: Tensor = _SumOfBranches.apply(x, module, *parameters)
    return out


def is_supported(module: RepConv, x: Tensor) -> bool:
    """Return whether the kernels compute this module for this input."""
    if not is_supported_call(module, x) or has_hooks(module) or module.dilation != 1:
        return False
    if not all(is_supported_norm(norm, x.dtype) for norm in _norms(module)):
        return False
    if module.groups == 1:
        fits = module.kernel_size == 1 and module.stride == 1 and module.skip is None
    else:
        fits = module.kernel_size in (3, 5) and module.stride in (1, 2)
        fits = fits and module.groups == module.in_channels == module.out_channels
    fits = fits and all(
        type(conv) is nn.Conv2d and conv.bias is None and conv.weight.dtype == x.dtype and conv.weight.is_contiguous()
        for conv in _convolutions(module)
    )
    pixels = x.shape[0] * -(-x.shape[2] // module.stride) * -(-x.shape[3] // module.stride)
    return fits and x.shape[1] == module.in_channels and pixels > 1  # else the regular layers raise their errors


def _branches(module: RepConv) -> list[Any]:
    return [*module.convs, *([] if module.scale is None else [module.scale])]


def _convolutions(module: RepConv) -> list[nn.Conv2d]:
    return [conv for conv, _ in _branches(module)]


def _norms(module: RepConv) -> list[nn.BatchNorm2d]:
    return [norm for _, norm in _branches(module)] + ([] if module.skip is None else [module.skip])


class _SumOfBranches(torch.autograd.Function):
    """x (N, C, H, W), the module, and all weights, gammas and betas of its branches -> (N, C_out, H', W')."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: RepConv, *parameters: Tensor) -> Tensor:
        weights, gammas, betas = _split(module, parameters)
        maps = x.detach().permute(0, 2, 3, 1).contiguous()
        strategy = strategy_for(module)(module, maps, weights)
        ctx.pixels = strategy.pixels
        means, variances = strategy.statistics()
        deviations = _update_statistics(_norms(module), means, variances, ctx.pixels)
        scales = torch.stack(list(gammas)).double() / deviations
        shift = torch.stack(list(betas)).double().sum(0)
        out = strategy.output(scales, shift)
        ctx.module, ctx.strategy, ctx.maps = module, strategy, len(strategy.maps)
        ctx.save_for_backward(means, deviations, *parameters, *strategy.maps)
        strategy.maps = ()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        means, deviations, *saved = ctx.saved_tensors
        parameters, ctx.strategy.maps = saved[: -ctx.maps], saved[-ctx.maps :]
        _, gammas, betas = _split(ctx.module, parameters)
        d = grad.permute(0, 2, 3, 1).contiguous()
        scales = torch.stack(list(gammas)).double() / deviations
        total = d.flatten(0, 2).sum(0).double()
        products = ctx.strategy.products(d, total)
        slopes = -scales * products / (deviations.square() * ctx.pixels)
        offsets = -slopes * means - scales * total / ctx.pixels
        d_x, d_weights = ctx.strategy.gradients(d, scales, slopes, offsets)
        ctx.strategy.maps = ()
        d_gammas, d_betas = products / deviations, [total] * len(betas)
        # With the strides of the parameters, like autograd's own: DistributedDataParallel requires that.
        of_parameters = [
            torch.empty_like(p).copy_(g.reshape(p.shape))
            for p, g in zip(parameters, [*d_weights, *d_gammas, *d_betas], strict=True)
        ]
        return d_x.permute(0, 3, 1, 2), None, *of_parameters


def _split(module: RepConv, parameters: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    """Split the parameters into weights, gammas and betas."""
    convolutions, norms = len(_convolutions(module)), len(_norms(module))
    return parameters[:convolutions], parameters[convolutions:-norms], parameters[-norms:]


def _update_statistics(norms: Sequence[nn.BatchNorm2d], means: Tensor, variances: Tensor, pixels: int) -> Tensor:
    """Return the deviations of all branches, (F, C), and update running statistics as in training."""
    for norm, mean, variance in zip(norms, means, variances, strict=True):
        assert norm.num_batches_tracked is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((variance * (pixels / (pixels - 1))).to(norm.running_var), norm.momentum)
    return (variances + variances.new_tensor([norm.eps for norm in norms])[:, None]).sqrt()
