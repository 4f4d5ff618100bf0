"""What every convolution of the family shares: channel rounding, convolution + normalisation, and its folding."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConvBnAct", "fold_batch_norm", "make_divisible", "norm_arguments"]


def make_divisible(channels: float, divisor: int = 4) -> int:
    """Rounds a channel count to the nearest multiple of ``divisor``, losing at most a tenth of it.

    The rule of the MobileNet and GhostNet implementations: a width multiplier scales every row of the architecture
    table, and this makes the result an integer.

    >>> make_divisible(16 * 0.5), make_divisible(24 * 1.3), make_divisible(72 * 0.25)
    (8, 32, 20)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvBnAct(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: (N, C_in, H, W) -> (N, C_out, H', W').

    The children are named as the published checkpoints name them (``conv``, ``bn1``).
    """

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
    """Folds a batch normalisation in inference form into the convolution or linear layer before it.

    ``gamma * (W x + b - mean) / sqrt(var + eps) + beta`` is again an affine map of ``x``; its weight and bias are
    returned. Computed in float64 and returned in the dtype of ``weight``.

    Args:
        weight: (C_out, ...) weight of the convolution or linear layer.
        bias: (C_out,) or None.
        running_mean: (C_out,), as ``running_var``, ``gamma`` and ``beta``.
        running_var: Of the normalisation.
        gamma: Its weight.
        beta: Its bias.
        eps: Of the normalisation.

    Returns:
        The folded ``(weight, bias)``, new tensors.
    """
    scale = gamma.double() / torch.sqrt(running_var.double() + eps)
    shift = beta.double() - running_mean.double() * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    folded = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return folded.to(weight.dtype), shift.to(weight.dtype)


def norm_arguments(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, Any]:
    """What ``fold_batch_norm`` wants to know of a normalisation layer with weights and running statistics."""
    return {
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "gamma": norm.weight,
        "beta": norm.bias,
        "eps": norm.eps,
    }
