"""Three strategies for computing parallel branches together; the notation is that of ``branches``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ghostnets.layers import RepConv
from ghostnets.train.fused.kernels import filter_gradient, native_module

__all__ = ["Strategy", "strategy_for"]


def strategy_for(module: RepConv) -> "type[Strategy]":
    """Return the strategy that computes the branches of a module."""
    if module.groups > 1:
        return _Depthwise
    # The covariance of a narrow input is cheaper than the output of every branch.
    return _Expanding if 2 * module.in_channels <= len(module.convs) * module.out_channels else _Narrowing


class Strategy(ABC):
    """Computes branches together, from their input x (N, H, W, C), contiguous; methods are called in this order.

    Attributes:
        pixels: P, the number of pixels of the output.
        maps: Tensors of the size of maps that the backward pass needs.
    """

    pixels: int
    maps: Sequence[Tensor]

    @abstractmethod
    def __init__(self, module: RepConv, x: Tensor, weights: Sequence[Tensor]) -> None: ...

    @abstractmethod
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the output of each branch: float64 (F, C_out)."""

    @abstractmethod
    def output(self, scales: Tensor, shift: Tensor) -> Tensor:
        """Return the sum over f of scales[f] (z_f - mean z_f), + shift: (N, C_out, H', W')."""

    @abstractmethod
    def products(self, d: Tensor, total: Tensor) -> Tensor:
        """Return q, float64 (F, C_out), from d (N, H', W', C_out) and its sum over all pixels."""

    @abstractmethod
    def gradients(self, d: Tensor, scales: Tensor, slopes: Tensor, offsets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the gradients of x and of each weight, where dz_f = scales[f] d + slopes[f] z_f + offsets[f]."""


class _Expanding(Strategy):
    """1 x 1 branches of a narrow input: all statistics follow from the mean and covariance of the input.

    The input is stored centred, so every z_f has mean 0.
    """

    def __init__(self, module: RepConv, x: Tensor, weights: Sequence[Tensor]) -> None:
        self.shape, rows = x.shape, x.flatten(0, 2)
        self.pixels, self.mean = len(rows), rows.mean(0)
        rows = rows - self.mean
        self.maps = (rows,)  # (P, C_in)
        self.weights = torch.stack([w.flatten(1) for w in weights])  # (F, C_out, C_in)
        self.images = self.weights @ (rows.t() @ rows)

    def statistics(self) -> tuple[Tensor, Tensor]:
        squares = (self.images * self.weights).sum(2).double()
        return (self.weights @ self.mean).double(), (squares / self.pixels).clamp_(min=0)

    def output(self, scales: Tensor, shift: Tensor) -> Tensor:
        (centred,) = self.maps
        self.merged = torch.einsum("fo,foi->oi", scales.to(centred), self.weights)
        out, rows = _output(self.shape, self.merged)
        torch.addmm(shift.to(rows), centred, self.merged.t(), out=rows)
        return out

    def products(self, d: Tensor, total: Tensor) -> Tensor:
        (centred,) = self.maps
        self.d_mean = (total / self.pixels).to(d)
        self.of_merged = d.flatten(0, 2).t() @ centred
        return (self.weights * self.of_merged).sum(2).double()

    def gradients(self, d: Tensor, scales: Tensor, slopes: Tensor, offsets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        (centred,), rows = self.maps, d.flatten(0, 2)
        scales, slopes = scales.to(d), slopes.to(d)
        between = torch.einsum("fo,foi,foj->ij", slopes, self.weights, self.weights)
        of_mean = self.d_mean @ self.merged  # every pixel moves the mean that the input was centred by
        d_x = torch.addmm(-of_mean, rows, self.merged).addmm_(centred, between)
        d_weights = scales[..., None] * self.of_merged + slopes[..., None] * self.images
        return d_x.unflatten(0, self.shape[:3]), list(d_weights)


class _Narrowing(Strategy):
    """1 x 1 branches to few channels: their outputs are stored, concatenated and centred."""

    def __init__(self, module: RepConv, x: Tensor, weights: Sequence[Tensor]) -> None:
        self.shape, rows = x.shape, x.flatten(0, 2)
        self.pixels, self.branches = len(rows), len(weights)
        self.weights = torch.cat([w.flatten(1) for w in weights])  # (F C_out, C_in)
        outputs = rows @ self.weights.t()
        self.mean = outputs.mean(0)
        self.maps = (rows, outputs.sub_(self.mean))  # (P, C_in), (P, F C_out)

    def statistics(self) -> tuple[Tensor, Tensor]:
        both = torch.stack([self.mean, self.maps[1].square().mean(0)]).double()
        return both.unflatten(1, (self.branches, -1)).unbind()

    def output(self, scales: Tensor, shift: Tensor) -> Tensor:
        out, rows = _output(self.shape, shift.to(self.mean))
        rows.copy_(shift)
        for scale, output in zip(scales.to(rows), self.maps[1].chunk(self.branches, 1), strict=True):
            rows.addcmul_(output, scale)
        return out

    def products(self, d: Tensor, total: Tensor) -> Tensor:
        rows, outputs = d.flatten(0, 2), self.maps[1].chunk(self.branches, 1)
        self.d_mean = (total / self.pixels).to(d)
        return torch.stack([torch.linalg.vecdot(rows, output, dim=0) for output in outputs]).double()

    def gradients(self, d: Tensor, scales: Tensor, slopes: Tensor, offsets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        (x, outputs), rows = self.maps, d.flatten(0, 2)
        scales, slopes = scales.to(d), slopes.to(d)
        d_outputs = torch.addcmul((-scales * self.d_mean).flatten(), outputs, slopes.flatten())
        for d_output, scale in zip(d_outputs.chunk(self.branches, 1), scales, strict=True):
            d_output.addcmul_(rows, scale)
        d_x = (d_outputs @ self.weights).unflatten(0, self.shape[:3])
        return d_x, (d_outputs.t() @ x).chunk(self.branches)


class _Depthwise(Strategy):
    """Depthwise branches, without storing outputs. The 1 x 1 branch and the identity scale the centre pixel."""

    def __init__(self, module: RepConv, x: Tensor, weights: Sequence[Tensor]) -> None:
        images, height, width, channels = x.shape
        self.kernel_size, self.stride, self.middle = module.kernel_size, module.stride, module.kernel_size**2 // 2
        self.pixels, self.maps = images * -(-height // self.stride) * -(-width // self.stride), (x,)
        self.filters = torch.stack([w.flatten(1) for w in weights[: len(module.convs)]])  # (F', C, K K)
        factors = [w.flatten() for w in weights[len(module.convs) :]]
        self.has_scale = len(factors) > 0
        factors += [] if module.skip is None else [x.new_ones(channels)]
        self.factors = torch.stack(factors).double() if factors else x.new_empty(0, channels, dtype=torch.float64)

    def statistics(self) -> tuple[Tensor, Tensor]:
        moments = torch.empty(2, len(self.filters) + 1, self.filters.shape[1], dtype=torch.float64)
        native_module(self.maps[0].dtype).branch_moments(moments=moments.data_ptr(), **self._arguments())
        means, squares = moments / self.pixels
        variances = (squares - means.square()).clamp_(min=0)
        self.means, self.mean, self.variance = (
            means[:-1],
            means[-1],
            variances[-1],
        )  # filters, centre
        of_factors = self.factors * self.mean, self.factors.square() * self.variance
        return torch.cat([means[:-1], of_factors[0]]), torch.cat([variances[:-1], of_factors[1]])

    def output(self, scales: Tensor, shift: Tensor) -> Tensor:
        (x,), count = self.maps, len(self.filters)
        of_middle = (scales[count:] * self.factors).sum(0)
        shift = shift - (scales[:count] * self.means).sum(0) - of_middle * self.mean
        merged = torch.einsum("fc,fck->ck", scales[:count], self.filters.double())
        merged[:, self.middle] += of_middle
        self.merged = merged.to(x)
        kernel = self.merged.unflatten(1, (1, self.kernel_size, self.kernel_size))
        padding, groups = self.kernel_size // 2, len(kernel)
        return F.conv2d(x.permute(0, 3, 1, 2), kernel, shift.to(x), self.stride, padding, groups=groups)

    def products(self, d: Tensor, total: Tensor) -> Tensor:
        self.of_merged = filter_gradient(self.maps[0], d, self.kernel_size, self.stride)
        of_filters = torch.einsum("ck,fck->fc", self.of_merged.double(), self.filters.double()) - self.means * total
        of_middle = self.of_merged[:, self.middle].double() - self.mean * total
        return torch.cat([of_filters, self.factors * of_middle])

    def gradients(self, d: Tensor, scales: Tensor, slopes: Tensor, offsets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        (x,), count = self.maps, len(self.filters)
        of_middle = (slopes[count:] * self.factors.square()).sum(0), (offsets[count:] * self.factors).sum(0)
        lines = [torch.cat([of[:count], m[None]]).to(x) for of, m in zip((slopes, offsets), of_middle, strict=True)]
        d_x, d_filters = torch.empty_like(x), torch.empty_like(self.filters)
        native_module(x.dtype).branch_gradient(
            d=d.data_ptr(),
            merged=self.merged.data_ptr(),
            slopes=lines[0].data_ptr(),
            offsets=lines[1].data_ptr(),
            out=d_x.data_ptr(),
            weight_gradients=d_filters.data_ptr(),
            **self._arguments(),
        )
        d_filters += scales[:count, :, None].to(x) * self.of_merged
        if not self.has_scale:
            return d_x, list(d_filters)
        squares = self.pixels * (self.variance + self.mean.square())
        d_factor = scales[count] * self.of_merged[:, self.middle].double()
        d_factor += slopes[count] * self.factors[0] * squares + offsets[count] * self.pixels * self.mean
        return d_x, [*d_filters, d_factor]

    def _arguments(self) -> dict[str, int]:
        """The arguments that both native functions share."""
        (x,) = self.maps
        images, height, width, channels = x.shape
        return {
            "threads": torch.get_num_threads(),
            "images": images,
            "height": height,
            "width": width,
            "channels": channels,
            "kernel": self.kernel_size,
            "stride": self.stride,
            "filters": len(self.filters),
            "x": x.data_ptr(),
            "weights": self.filters.data_ptr(),
        }


def _output(shape: torch.Size, like: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate (N, C_out, H, W), C_out = len(like); also return its memory as rows (N H W, C_out).

    The first is not a view, since an in-place ReLU may follow.
    """
    images, height, width, _ = shape
    out = torch.empty(images, len(like), height, width, dtype=like.dtype, memory_format=torch.channels_last)
    return out, out.permute(0, 2, 3, 1).flatten(0, 2)
