"""Re-parameterisable convolutions: parallel branches in training, merged into one convolution for inference.

Ding et al., "RepVGG", CVPR 2021 (arXiv 2101.03697); used in the Ghost modules of Liu et al., "GhostNetV3: Exploring the
Training Strategies for Compact Models" (arXiv 2404.11202), section 3.1.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.layers.conv import fold_batch_norm, norm_arguments
from ghostnets.layers.dispatch import dispatch, is_scripting

__all__ = ["RepConv", "conv_norm"]


class RepConv(nn.Module):
    """Sum of linear branches equal to one convolution: (N, C_in, H, W) -> (N, C_out, H', W'), H' = ceil(H / stride).

    ::

        x ─┬─> convs: k x k convolution, BN (one or more) ────┐
           ├─> scale: 1 x 1 convolution, BN ───────────────────┼─> + ─> out
           └─> skip: BN ───────────────────────────────────────┘

    In evaluation mode every branch is affine, and so is their sum; ``merged`` returns it as one convolution.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size k, odd.
        stride: Stride of all branches.
        groups: Number of groups of all convolutions.
        dilation: Dilation of the k x k convolutions.
        branches: Number of k x k branches.
        scale: Add the 1 x 1 branch; ignored for k = 1, where it would duplicate a k x k branch.
        skip: Add the identity branch; ignored unless input and output have the same shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        branches: int,
        scale: bool,
        skip: bool,
    ) -> None:
        super().__init__()

        def branch(size: int) -> nn.Sequential:
            return nn.Sequential(
                *conv_norm(in_channels, out_channels, size, stride=stride, groups=groups, dilation=dilation)
            )

        self.kernel_size, self.stride, self.groups, self.dilation = kernel_size, stride, groups, dilation
        self.in_channels, self.out_channels = in_channels, out_channels
        self.convs = nn.ModuleList(branch(kernel_size) for _ in range(branches))
        self.scale = branch(1) if scale and kernel_size > 1 else None
        self.skip = nn.BatchNorm2d(out_channels) if skip and in_channels == out_channels and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if not is_scripting():
            overridden = dispatch(RepConv, self, x)
            if overridden is not None:
                return overridden
        out = self.scale(x) if self.scale is not None else torch.zeros((), dtype=x.dtype, device=x.device)
        if self.skip is not None:
            out = out + self.skip(x)
        for conv in self.convs:
            out = out + conv(x)
        return out

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """Return one convolution with bias that is equivalent to the sum of all branches in evaluation mode."""
        kernels, biases = zip(*(self._fold_kernel(*branch) for branch in self._branches()), strict=True)
        kernel, bias = sum(kernels), sum(biases)
        if self.skip is not None:
            inputs = self.in_channels // self.groups
            identity = torch.zeros_like(kernel)
            for channel in range(self.out_channels):
                identity[channel, channel % inputs, self.kernel_size // 2, self.kernel_size // 2] = 1
            extra_kernel, extra_bias = self._fold_kernel(identity, self.skip)
            kernel, bias = kernel + extra_kernel, bias + extra_bias
        merged = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.dilation * (self.kernel_size // 2),
            groups=self.groups,
            dilation=self.dilation,
        ).to(kernel)
        merged.weight.copy_(kernel)
        assert merged.bias is not None
        merged.bias.copy_(bias)
        return merged

    def _branches(self) -> list[tuple[Tensor, nn.BatchNorm2d]]:
        """Return weight and normalisation of each branch with a convolution."""
        branches: list[Any] = [*self.convs, *([self.scale] if self.scale is not None else [])]
        return [(convolution.weight, norm) for convolution, norm in branches]

    def _fold_kernel(self, weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Return the folded k x k kernel and bias of a branch; a smaller kernel is zero-padded."""
        folded, bias = fold_batch_norm(weight, None, **norm_arguments(norm))
        pad = (self.kernel_size - folded.shape[-1]) // 2
        return F.pad(folded, [pad] * 4), bias


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    branches: int = 0,
    scale: bool = False,
    skip: bool = False,
) -> list[nn.Module]:
    """Build a list of modules: convolution and batch normalisation, or one ``RepConv`` if ``branches`` is above 0."""
    if branches:
        return [
            RepConv(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                groups=groups,
                dilation=dilation,
                branches=branches,
                scale=scale,
                skip=skip,
            )
        ]
    padding = dilation * (kernel_size // 2)
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, dilation=dilation, bias=False
    )
    return [convolution, nn.BatchNorm2d(out_channels)]
