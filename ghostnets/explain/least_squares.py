"""Predicting one map from another by a depthwise filter: exact least squares from sums over any number of images.

The model is that of a Ghost module's cheap operation with its normalisation: a map y is predicted as a d x d filter of
a map x plus one constant for all images, with zeros outside the map (padding of (d - 1) / 2), as the networks pad.
The regressors are the d^2 shifted copies of x and the constant 1; the normal equations need only the sums of their
products, so images stream through once and memory does not depend on their number.

With one constant for all images, "centred" means: minus the mean over all pixels of all images. The square of the
cosine of two centred maps is then the share of variance that a 1 x 1 filter explains.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MapStatistics", "PairStatistics"]

CHUNK = 4_000_000  # numbers in a temporary: some 32 MB, so that a core's share stays near its cache


class MapStatistics:
    """Sums over all pairs of maps of one layer, and what follows from them.

    Products are taken in the precision of the maps (float32 for an ordinary network) and batches are added in float64.

    Args:
        channels: C.
        size: (H, W).
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        self.size = size
        self.images = 0
        self.epsilon = torch.finfo(torch.float32).eps
        self.total = torch.zeros(channels, *size, dtype=torch.float64)  # of all images, for every pixel
        # lagged[k][i, j] = sum of x_i(p + u) x_j(p) for the lags u of _half(1); the others are transposes of these.
        self.lagged = torch.zeros(len(_half(1)), channels, channels, dtype=torch.float64)
        self.windows = torch.zeros(channels, 9, 9, dtype=torch.float64)  # products of the nine shifted copies of a map

    def add(self, maps: Tensor) -> None:
        """Adds a batch (N, C, H, W)."""
        x = maps.detach().transpose(0, 1)  # (C, N, H, W)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        self.epsilon = torch.finfo(x.dtype).eps
        self.images += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64)
        flat, row = _flat(x, 1)
        for sums, (down, right) in zip(self.lagged, _half(1), strict=True):
            offset = down * row + right
            sums += flat[:, offset:] @ flat[:, : flat.shape[1] - offset].T
        self.windows += _window_products(x, 1)

    @property
    def pixels(self) -> int:
        """Of one map in all images."""
        return self.images * self.size[0] * self.size[1]

    def covariance(self) -> Tensor:
        """Sums of products of centred maps: float64 (C, C)."""
        total = self.total.sum((1, 2))
        covariance = self.lagged[0] - torch.outer(total, total) / self.pixels
        # A map that is constant up to rounding has no variance: what is left of it is noise of the subtraction.
        variance = covariance.diagonal()
        constant = variance <= 16 * self.epsilon * self.lagged[0].diagonal()
        covariance[constant] = 0
        covariance[:, constant] = 0
        return covariance

    def cosine(self) -> Tensor:
        """Cosine of each pair of centred maps, float64 (C, C) in [-1, 1]; 0 where one of them is constant."""
        return _normalized(self.covariance())

    def explained(self) -> Tensor:
        """R^2 of all pairs by a 3 x 3 filter: float64 (C, C), row: the map x it is made from, column: the map y.

        The share of the variance of y that the best filter of x explains, in [0, 1]; 0 where one of them is constant.
        """
        variance = self.covariance().diagonal()
        shifted = _shifted_sums(self.total, 1)  # (C, 9)
        products = self.windows - shifted[:, :, None] * shifted[:, None] / self.pixels
        by_lag = {lag: sums for sums, lag in zip(self.lagged, _half(1), strict=True)}
        cross = torch.stack([by_lag[u] if u in by_lag else by_lag[-u[0], -u[1]].T for u in _lags(1)], dim=1)
        cross = cross - shifted[:, :, None] * self.total.sum((1, 2)) / self.pixels  # (C, 9, C)
        explained = (_whitening(products, self.epsilon) @ cross).square_().sum(1) / variance
        explained[:, variance == 0] = 0
        explained[variance == 0] = 0
        return explained.clamp_(0, 1)


class PairStatistics:
    """Sums over chosen pairs of maps, in float64, for filters of up to ``largest`` x ``largest``.

    Args:
        sources: int64 (P,): the maps that others are made from.
        targets: int64 (P,): the map that is made from each.
        size: (H, W).
        largest: d of the largest filter, odd.
    """

    def __init__(self, sources: Tensor, targets: Tensor, size: tuple[int, int], largest: int) -> None:
        self.size, self.radius = size, largest // 2
        self.images = 0
        # Several maps are made from the same one: its own products are summed once.
        self.sources, self.source_of = torch.unique(sources, return_inverse=True)
        self.targets = targets
        area = largest * largest
        self.windows = torch.zeros(len(self.sources), area, area, dtype=torch.float64)
        self.cross = torch.zeros(len(targets), area, dtype=torch.float64)
        self.source_total = torch.zeros(len(self.sources), *size, dtype=torch.float64)
        self.target_total = torch.zeros(len(targets), dtype=torch.float64)
        self.target_squares = torch.zeros(len(targets), dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Adds a batch (N, C, H, W)."""
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
            here = slice(start, start + step)
            xs, ys = flat_x[self.source_of[here]], flat_y[here]
            for column, (down, right) in enumerate(_lags(self.radius)):
                offset = down * row + right
                first = xs[:, max(0, offset) : length + min(0, offset)]
                second = ys[:, max(0, -offset) : length + min(0, -offset)]
                self.cross[here, column] += torch.linalg.vecdot(first, second)

    def fit(self, kernel_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best filters of ``kernel_size`` x ``kernel_size``, at most ``largest``.

        Returns:
            Error: (P,), the share of the variance of the target that is left, in [0, 1]; nan where it is constant.
            Filters: (P, d, d), as ``torch.nn.functional.conv2d`` takes them (a correlation).
            Constants: (P,).
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
        constants = (self.target_total - (filters * shifted[self.source_of]).sum(1)) / pixels
        error = torch.where(constant, torch.nan, (1 - explained / variance).clamp(0, 1))
        return error, filters.reshape(-1, kernel_size, kernel_size), constants


def _lags(radius: int) -> list[tuple[int, int]]:
    """Shifts (down, right) of a filter, in the order of its weights."""
    span = range(-radius, radius + 1)
    return [(down, right) for down in span for right in span]


def _half(radius: int) -> list[tuple[int, int]]:
    """(0, 0), and of each pair of opposite shifts the later one."""
    return _lags(radius)[len(_lags(radius)) // 2 :]


def _flat(x: Tensor, radius: int) -> tuple[Tensor, int]:
    """(C, N, H, W) -> (C, L) with zeros behind each row and image, and the length of a row.

    A shift of the map is then a shift of the vector: what leaves a row meets the zeros behind it.
    """
    return F.pad(x, (0, radius, 0, radius)).flatten(1), x.shape[3] + radius


def _window_products(x: Tensor, radius: int) -> Tensor:
    """For each map the products of its shifted copies: (C, N, H, W) -> float64 (C, d^2, d^2).

    Entry [u, v] is the sum of x(p + u) x(p + v) over the pixels p of the map. Row by row: the d copies of a row that
    are shifted sideways are multiplied with those of the d rows from it downwards, and rows are then added up, but for
    those that a shift up or down moves out of the map.
    """
    channels, images, height, width = x.shape
    d = 2 * radius + 1
    result = torch.zeros(channels, d, d, d, d, dtype=torch.float64)
    step = max(1, CHUNK // (images * (height + d) * width * d))
    for start in range(0, channels, step):
        part = x[start : start + step]
        rows = F.pad(part, (radius, radius, 0, d - 1)).transpose(1, 2)  # (c, H + d - 1, N, W + d - 1)
        copies = rows.unfold(3, width, 1).permute(0, 1, 3, 2, 4).reshape(-1, d, images * width)
        below = F.pad(copies, (0, 0, 0, 0, 0, d - 1)).unfold(0, d, 1).permute(0, 3, 1, 2).flatten(1, 2)  # a view
        products = torch.bmm(copies, below.mT).reshape(len(part), -1, d, d, d)  # row, sideways, down, sideways
        for up in range(d):
            shift = up - radius
            inside = products[:, max(0, shift) : height + min(0, shift)].sum(1, dtype=torch.float64)
            for down in range(d - up):
                result[start : start + step, up, :, up + down] = inside[:, :, down]
                result[start : start + step, up + down, :, up] = inside[:, :, down].mT
    return result.reshape(channels, d * d, d * d)


def _shifted_sums(total: Tensor, radius: int) -> Tensor:
    """The sum of each shifted copy: (C, H, W) -> (C, d^2)."""
    _, height, width = total.shape
    sums = [
        total[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)].sum((1, 2))
        for down, right in _lags(radius)
    ]
    return torch.stack(sums, dim=1)


def _whitening(products: Tensor, epsilon: float) -> Tensor:
    """Rows whose products with the regressors are uncorrelated: (S, k, k) -> (S, k, k), W^T W the pseudo-inverse.

    Neighbouring pixels are alike, so the normal equations are close to singular: directions whose share of the largest
    eigenvalue is below the rounding of the sums are left out, as ``lstsq`` does.
    """
    values, vectors = torch.linalg.eigh(products)
    cutoff = products.shape[-1] * epsilon * values[:, -1:].clamp(min=0)
    scale = torch.where(values > cutoff, values.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    return scale[:, :, None] * vectors.mT


def _normalized(covariance: Tensor) -> Tensor:
    scale = covariance.diagonal().sqrt()
    scale = torch.where(scale > 0, 1 / scale, 0.0)
    return (covariance * scale[:, None] * scale).clamp_(-1, 1)
