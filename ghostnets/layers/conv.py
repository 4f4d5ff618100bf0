"""Building blocks shared by all networks: channel rounding, Conv-BN-ReLU, and batch-normalisation folding."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConvBnAct", "fold_batch_norm", "make_divisible", "norm_arguments"]


def make_divisible(channels: float, divisor: int = 4) -> int:
    """Round a channel count to the nearest multiple of ``divisor``, rounding down by at most 10 %.

    The rule of the MobileNet and GhostNet implementations, applied to every row of the architecture table after scaling
    it by the width multiplier.

    >>> make_divisible(16 * 0.5), make_divisible(24 * 1.3), make_divisible(72 * 0.25)
    (8, 32, 20)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvBnAct(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: (N, C_in, H, W) -> (N, C_out, H', W').

    H' = ceil(H / stride). Children have the names of the published checkpoints (``conv``, ``bn1``).
    """

    conv_norm_pairs = (("conv", "bn1"),)  # for compress.fuse

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv(x)))


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    *,
    running_mean: Tensor,
    running_var: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Fold batch normalisation in inference form into the preceding convolution or linear layer.

    ``gamma * (W x + b - mean) / sqrt(var + eps) + beta`` is an affine map of ``x``, whose weight and bias are returned.
    Computed in float64, returned in the dtype of ``weight``.

    Args:
        weight: Weight of the convolution or linear layer, (C_out, ...).
        bias: Bias of that layer, (C_out,), or None.
        running_mean: Running mean of the normalisation, (C_out,).
        running_var: Running variance, (C_out,).
        gamma: Weight of the normalisation, (C_out,).
        beta: Bias of the normalisation, (C_out,).
        eps: Epsilon of the normalisation.

    Returns:
        Folded weight and bias, as new tensors.
    """
    scale = gamma.double() / torch.sqrt(running_var.double() + eps)
    shift = beta.double() - running_mean.double() * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return folded.to(weight.dtype), shift.to(weight.dtype)


def norm_arguments(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, Any]:
    """Keyword arguments of ``fold_batch_norm`` for a normalisation layer with weights and running statistics."""
    return {
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "gamma": norm.weight,
        "beta": norm.bias,
        "eps": norm.eps,
    }
