"""Convolution blocks shared by the neck and the head of a detector."""

from torch import nn

__all__ = ["conv_act", "separable_conv", "use_leaky_relu"]


def conv_act(
    in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU: (N, C_in, H, W) -> (N, C_out, H', W').

    H' = ceil(H / stride).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_conv(in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise and 1x1 convolution, each with batch normalisation and ReLU: (N, C_in, H, W) -> (N, C_out, H', W')."""
    return nn.Sequential(
        conv_act(in_channels, in_channels, kernel_size, stride=stride, groups=in_channels),
        conv_act(in_channels, out_channels),
    )


def use_leaky_relu(model: nn.Module, negative_slope: float) -> None:
    """Replace every ReLU of a network with a leaky ReLU, in place.

    Ghost bottlenecks then train with their regular implementation, because the fused kernels support only ReLU.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.LeakyReLU(negative_slope, inplace=True))
