"""Exact least-squares prediction of one feature map from another by a depthwise filter, over any number of images.

The model is that of a Ghost module's cheap operation with its normalisation: a map y is predicted as a d x d filter of
a map x plus a bias shared by all images, with zero padding of (d - 1) / 2. The regressors are the d^2 shifted copies of
x and the constant 1. The normal equations need only the sums of their products, so images are streamed once and memory
is independent of their number.

Because the bias is shared, maps are centred by their mean over all pixels of all images. The squared cosine of two
centred maps is then the R^2 of a 1 x 1 filter.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MapStatistics", "PairStatistics"]

CHUNK = 4_000_000  # elements of a temporary, at most 32 MB


class MapStatistics:
    """Streaming sufficient statistics of all pairs of maps of one layer.

    Products are computed in the dtype of the maps (at least float32) and accumulated over batches in float64.

    Args:
        channels: C.
        size: (H, W).
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        self.size = size
        self.images = 0
        self.epsilon = torch.finfo(torch.float32).eps
        self.total = torch.zeros(channels, *size, dtype=torch.float64)  # sum over the images, for every pixel
        # lagged[k][i, j] = sum over p of x_i(p + u) x_j(p) for each lag u of _half_lags(1); -u gives the transpose.
        self.lagged = torch.zeros(len(_half_lags(1)), channels, channels, dtype=torch.float64)
        self.windows = torch.zeros(channels, 9, 9, dtype=torch.float64)  # products of the shifted copies of each map

    def add(self, maps: Tensor) -> None:
        """Accumulate a batch of maps (N, C, H, W)."""
        x = maps.detach().transpose(0, 1)  # (C, N, H, W)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        self.epsilon = torch.finfo(x.dtype).eps
        self.images += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64)
        flat, row = _flat(x, 1)
        for sums, (down, right) in zip(self.lagged, _half_lags(1), strict=True):
            offset = down * row + right
            sums += flat[:, offset:] @ flat[:, : flat.shape[1] - offset].T
        self.windows += _window_products(x, 1)

    @property
    def pixels(self) -> int:
        """Number of pixels of one map over all images."""
        return self.images * self.size[0] * self.size[1]

    def scatter(self) -> Tensor:
        """Return the scatter matrix of the maps (unnormalised covariance): float64 (C, C)."""
        total = self.total.sum((1, 2))
        scatter = self.lagged[0] - torch.outer(total, total) / self.pixels
        # The scatter of a constant map is rounding noise of the subtraction.
        constant = scatter.diagonal() <= 16 * self.epsilon * self.lagged[0].diagonal()
        scatter[constant] = 0
        scatter[:, constant] = 0
        return scatter

    def cosine(self) -> Tensor:
        """Return the cosine of each pair of centred maps: float64 (C, C) in [-1, 1]; 0 if one of them is constant."""
        return _normalize(self.scatter())

    def r_squared(self) -> Tensor:
        """Return the R^2 of the best 3 x 3 filter for every pair: float64 (C, C) in [0, 1], rows x, columns y.

        R^2 is the share of the variance of y explained by x; 0 if one of them is constant.
        """
        variance = self.scatter().diagonal()
        shifted = _shifted_sums(self.total, 1)  # (C, 9)
        products = self.windows - shifted[:, :, None] * shifted[:, None] / self.pixels
        by_lag = {lag: sums for sums, lag in zip(self.lagged, _half_lags(1), strict=True)}
        cross = torch.stack([by_lag[u] if u in by_lag else by_lag[-u[0], -u[1]].T for u in _lags(1)], dim=1)
        cross = cross - shifted[:, :, None] * self.total.sum((1, 2)) / self.pixels  # (C, 9, C)
        r_squared = (_whitening(products, self.epsilon) @ cross).square_().sum(1) / variance
        r_squared[:, variance == 0] = 0
        r_squared[variance == 0] = 0
        return r_squared.clamp_(0, 1)


class PairStatistics:
    """Streaming sufficient statistics of given pairs of maps, in float64.

    Args:
        sources: Channels of the predictors x, int64 (P,).
        targets: Channels of the predicted maps y, int64 (P,).
        size: (H, W).
        max_kernel_size: Largest filter size d, odd.
    """

    def __init__(self, sources: Tensor, targets: Tensor, size: tuple[int, int], max_kernel_size: int) -> None:
        self.size, self.radius = size, max_kernel_size // 2
        self.images = 0
        # Pairs share sources: the products of each source are accumulated once.
        self.sources, self.source_of = torch.unique(sources, return_inverse=True)
        self.targets = targets
        area = max_kernel_size * max_kernel_size
        self.windows = torch.zeros(len(self.sources), area, area, dtype=torch.float64)
        self.cross = torch.zeros(len(targets), area, dtype=torch.float64)
        self.source_total = torch.zeros(len(self.sources), *size, dtype=torch.float64)
        self.target_total = torch.zeros(len(targets), dtype=torch.float64)
        self.target_squares = torch.zeros(len(targets), dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Accumulate a batch of maps (N, C, H, W)."""
        x = maps.detach().transpose(0, 1)[self.sources].double()  # (S, N, H, W)
        y = maps.detach().transpose(0, 1)[self.targets].double()  # (P, N, H, W)
        self.images += x.shape[1]
        self.source_total += x.sum(1)
        self.target_total += y.sum((1, 2, 3))
        self.windows += _window_products(x, self.radius)
        flat_x, row = _flat(x, self.radius)
        flat_y, _ = _flat(y, self.radius)
        length = flat_y.shape[1]
        self.target_squares += torch.linalg.vecdot(flat_y, flat_y)
        step = max(1, CHUNK // length)
        for start in range(0, len(flat_y), step):
            chunk = slice(start, start + step)
            xs, ys = flat_x[self.source_of[chunk]], flat_y[chunk]
            for column, (down, right) in enumerate(_lags(self.radius)):
                offset = down * row + right
                first = xs[:, max(0, offset) : length + min(0, offset)]
                second = ys[:, max(0, -offset) : length + min(0, -offset)]
                self.cross[chunk, column] += torch.linalg.vecdot(first, second)

    def fit(self, kernel_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fit the best d x d filter of each pair, d = ``kernel_size`` <= ``max_kernel_size``.

        Returns:
            Unexplained share of the target's variance (1 - R^2), (P,) in [0, 1], nan if the target is constant;
            filters, (P, d, d), in the convention of ``torch.nn.functional.conv2d``; biases, (P,).
        """
        pixels = self.images * self.size[0] * self.size[1]
        inner = [
            column
            for column, (down, right) in enumerate(_lags(self.radius))
            if max(abs(down), abs(right)) <= kernel_size // 2
        ]
        shifted = _shifted_sums(self.source_total, self.radius)[:, inner]  # (S, d^2)
        products = self.windows[:, inner][:, :, inner] - shifted[:, :, None] * shifted[:, None] / pixels
        whitening = _whitening(products, torch.finfo(torch.float64).eps)[self.source_of]
        cross = self.cross[:, inner] - shifted[self.source_of] * self.target_total[:, None] / pixels
        variance = self.target_squares - self.target_total.square() / pixels
        constant = variance <= 16 * torch.finfo(torch.float64).eps * self.target_squares
        coordinates = whitening @ cross[:, :, None]  # (P, d^2, 1)
        explained = coordinates.square().sum((1, 2))
        filters = (whitening.mT @ coordinates).squeeze(2)
        biases = (self.target_total - (filters * shifted[self.source_of]).sum(1)) / pixels
        error = torch.where(constant, torch.nan, (1 - explained / variance).clamp(0, 1))
        return error, filters.reshape(-1, kernel_size, kernel_size), biases


def _lags(radius: int) -> list[tuple[int, int]]:
    """Return the offsets (down, right) of the taps of a filter, in the order of its weights."""
    span = range(-radius, radius + 1)
    return [(down, right) for down in span for right in span]


def _half_lags(radius: int) -> list[tuple[int, int]]:
    """Return (0, 0) and one lag of each opposite pair: the second half of ``_lags``."""
    return _lags(radius)[len(_lags(radius)) // 2 :]


def _flat(x: Tensor, radius: int) -> tuple[Tensor, int]:
    """Flatten (C, N, H, W) to (C, L) with zeros after each row and image; also return the padded row length.

    Shifting a map is then shifting the vector: pixels that leave a row fall on the padding.
    """
    return F.pad(x, (0, radius, 0, radius)).flatten(1), x.shape[3] + radius


def _window_products(x: Tensor, radius: int) -> Tensor:
    """Sum the products of the shifted copies of each map: (C, N, H, W) -> float64 (C, d^2, d^2).

    Entry [u, v] is the sum of x(p + u) x(p + v) over the pixels p of the map. Computed row by row: the d horizontal
    shifts of a row are multiplied with those of the d rows from it downwards; products are then summed over the rows
    that a vertical shift keeps inside the map.
    """
    channels, images, height, width = x.shape
    d = 2 * radius + 1
    result = torch.zeros(channels, d, d, d, d, dtype=torch.float64)
    step = max(1, CHUNK // (images * (height + d) * width * d))
    for start in range(0, channels, step):
        chunk = x[start : start + step]
        rows = F.pad(chunk, (radius, radius, 0, d - 1)).transpose(1, 2)  # (c, H + d - 1, N, W + d - 1)
        copies = rows.unfold(3, width, 1).permute(0, 1, 3, 2, 4).reshape(-1, d, images * width)
        below = F.pad(copies, (0, 0, 0, 0, 0, d - 1)).unfold(0, d, 1).permute(0, 3, 1, 2).flatten(1, 2)  # a view
        products = torch.bmm(copies, below.mT).reshape(len(chunk), -1, d, d, d)  # row, right, down, right
        for up in range(d):
            shift = up - radius
            inside = products[:, max(0, shift) : height + min(0, shift)].sum(1, dtype=torch.float64)
            for down in range(d - up):
                result[start : start + step, up, :, up + down] = inside[:, :, down]
                result[start : start + step, up + down, :, up] = inside[:, :, down].mT
    return result.reshape(channels, d * d, d * d)


def _shifted_sums(total: Tensor, radius: int) -> Tensor:
    """Sum the pixels of each shifted copy: (C, H, W) -> (C, d^2)."""
    _, height, width = total.shape
    sums = [
        total[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)].sum((1, 2))
        for down, right in _lags(radius)
    ]
    return torch.stack(sums, dim=1)


def _whitening(products: Tensor, epsilon: float) -> Tensor:
    """Return W with W^T W the pseudo-inverse of ``products``: (S, k, k) -> (S, k, k).

    Neighbouring pixels are correlated, so the normal equations are nearly singular: eigenvalues below the rounding
    error relative to the largest are dropped, as in ``lstsq``.
    """
    values, vectors = torch.linalg.eigh(products)
    cutoff = products.shape[-1] * epsilon * values[:, -1:].clamp(min=0)
    scale = torch.where(values > cutoff, values.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    return scale[:, :, None] * vectors.mT


def _normalize(scatter: Tensor) -> Tensor:
    scale = scatter.diagonal().sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0.0)
    return (scatter * scale[:, None] * scale).clamp_(-1, 1)
