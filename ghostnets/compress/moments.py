"""Least squares between feature maps from streamed sums, and greedy selection of predictor channels."""

import torch
from torch import Tensor

__all__ = ["Moments", "select_predictors", "select_sources"]

BOTH = slice(0, 2)
RIDGE = 1e-4  # times the mean variance: bounds what is divided by
RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-4)  # times the mean variance of the predictors


class Moments:
    """Streamed first and second moments of predictors x and targets y by channel, for two halves of the images.

    The halves judge each other's predictions, so that the ridge of ``solve`` suits the number of images: with few
    pixels and many channels, plain least squares fits the images given and no others.

    Args:
        channels: Number C of channels of x.
        targets: Number T of channels of y; None if y is x.
    """

    def __init__(self, channels: int, targets: int | None = None) -> None:
        self.images = 0
        self.counts = torch.zeros(2, dtype=torch.float64)
        self.x_totals = torch.zeros(2, channels, dtype=torch.float64)
        self.xx = torch.zeros(2, channels, channels, dtype=torch.float64)
        self.y_totals, self.xy = self.x_totals, self.xx
        if targets is not None:
            self.y_totals = torch.zeros(2, targets, dtype=torch.float64)
            self.xy = torch.zeros(2, channels, targets, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        """Accumulate maps of predictors (N, C, ...) and targets (N, T, ...); products in float32, sums in float64."""
        for half in range(2):
            chosen = slice((self.images + half) % 2, None, 2)
            x_half = _by_channel(x[chosen])
            self.counts[half] += x_half.shape[1]
            self.x_totals[half] += x_half.sum(1, dtype=torch.float64)
            self.xx[half] += x_half @ x_half.T
            if y is not None:
                y_half = _by_channel(y[chosen])
                self.y_totals[half] += y_half.sum(1, dtype=torch.float64)
                self.xy[half] += x_half @ y_half.T
        self.images += len(x)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the means of x (C,) and y (T,), float64."""
        return self.x_totals.sum(0) / self.counts.sum(), self.y_totals.sum(0) / self.counts.sum()

    def covariance(self, halves: slice = BOTH) -> Tensor:
        """Return the covariance of x, (C, C), float64."""
        return self._centred(self.xx, self.x_totals, halves)

    def cross_covariance(self, halves: slice = BOTH) -> Tensor:
        """Return the covariance of x and y, (C, T), float64."""
        return self._centred(self.xy, self.y_totals, halves)

    def _centred(self, products: Tensor, totals: Tensor, halves: slice) -> Tensor:
        count = self.counts[halves].sum().clamp(min=1)
        x_total, total = self.x_totals[halves].sum(0), totals[halves].sum(0)
        return products[halves].sum(0) / count - torch.outer(x_total, total) / count**2

    def solve(self, chosen: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict all targets from some of the predictors.

        Ridge regression towards a prior; of ``RIDGES``, the first in order after which the error of either half,
        predicted from the other, rises.

        Args:
            chosen: Channels of x, int64 (m,).
            prior: Matrix (T, C) that predicts y from all of x; by default, each channel predicts itself.

        Returns:
            Matrix A (T, m) and offset c (T,) of ``y = A x[chosen] + c``, float64.
        """
        prior = torch.eye(self.xx.shape[1]) if prior is None else prior
        towards = prior[:, chosen].double()
        matrix = self._solve(chosen, towards, self._choose_ridge(chosen, towards), BOTH)
        x_mean, y_mean = self.means()
        return matrix, y_mean - matrix @ x_mean[chosen]

    def _solve(self, chosen: Tensor, prior: Tensor, ridge: float, halves: slice) -> Tensor:
        inner = self.covariance(halves)[chosen][:, chosen]
        added = ridge * inner.diagonal().mean() + torch.finfo(torch.float32).tiny
        left = self.cross_covariance(halves)[chosen] - inner @ prior.T
        return prior + torch.linalg.solve(inner + added * torch.eye(len(chosen), dtype=inner.dtype), left).T

    def _choose_ridge(self, chosen: Tensor, prior: Tensor) -> float:
        if self.counts.min() < 2:
            return RIDGES[0]
        best, least = RIDGES[0], float("inf")
        for ridge in RIDGES:
            error = 0.0
            for fitted, judged in ((slice(0, 1), slice(1, 2)), (slice(1, 2), slice(0, 1))):
                matrix = self._solve(chosen, prior, ridge, fitted)
                inner, cross = self.covariance(judged)[chosen][:, chosen], self.cross_covariance(judged)[chosen]
                error += float((matrix * (matrix @ inner - 2 * cross.T)).sum())  # up to the variance of y
            if error > least:
                break
            best, least = ridge, error
        return best


def _by_channel(maps: Tensor) -> Tensor:
    return maps.detach().float().cpu().transpose(0, 1).flatten(1)


def select_predictors(covariance: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Order channels so that every prefix is a good linear predictor of the next layer's output.

    Each step adds the channel that most reduces the squared error of ``W x`` when x is predicted from the channels
    chosen so far: orthogonal matching pursuit on the covariance.

    Args:
        covariance: Covariance of the channels x, (C, C).
        weight: W, (O, C, ...), the kernel of the next layer, whose taps are taken as separate outputs; or None for x
            itself.

    Returns:
        All channels in order, int64 (C,); the error after the first n as a share of the total, n = 0 to C, (C + 1,).
    """
    channels = len(covariance)
    ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(torch.float32).tiny
    left = (covariance + ridge * torch.eye(channels, dtype=covariance.dtype)).float()
    factor = torch.eye(channels)
    if weight is not None:
        columns = weight.detach().double().cpu().transpose(0, 1).flatten(1)
        values, vectors = torch.linalg.eigh(columns @ columns.T)
        keep = values > values[-1] * 1e-7
        factor = (vectors[:, keep] * values[keep].sqrt()).float()
    seen = left @ factor  # residual covariance, weighted by the next layer
    errors, order = [float((factor * seen).sum())], []
    is_left = torch.ones(channels, dtype=torch.bool)
    tiny = left.diagonal().max() * 1e-6 + torch.finfo(torch.float32).tiny
    for _ in range(channels):
        gains = seen.square().sum(1) / left.diagonal().clamp(min=tiny)
        gains[~is_left] = -1
        index = int(gains.argmax())
        order.append(index)
        is_left[index] = False
        column = left[:, index] / left[index, index].clamp(min=tiny).sqrt()
        step = column @ factor
        left = left.addr_(column, column, alpha=-1)
        seen = seen.addr_(column, step, alpha=-1)
        errors.append(max(0.0, min(errors[-1], errors[-1] - float(step.square().sum()))))
    total = max(errors[0], torch.finfo(torch.float32).tiny)
    return torch.tensor(order), torch.tensor(errors, dtype=torch.float64) / total


def select_sources(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Order channels so that every prefix predicts the remaining channels well, each from a single one.

    Greedy facility location over the variance that one channel explains of another, which is within 1 - 1/e of the
    optimum.

    Args:
        covariance: Covariance of the channels, (C, C).

    Returns:
        As ``select_predictors``.
    """
    variance = covariance.diagonal().clamp(min=torch.finfo(torch.float32).tiny)
    explained = covariance.square() / variance[:, None]  # [i, j]: variance of channel j explained by channel i
    best = torch.zeros_like(variance)
    is_left = torch.ones(len(variance), dtype=torch.bool)
    total = float(variance.sum())
    order, errors = [], [1.0]
    for _ in range(len(variance)):
        gains = (explained - best).clamp_(min=0).sum(1)
        gains[~is_left] = -1
        index = int(gains.argmax())
        is_left[index] = False
        best = torch.maximum(best, explained[index])
        order.append(index)
        errors.append(max(0.0, 1 - float(best.sum()) / total))
    return torch.tensor(order), torch.tensor(errors, dtype=torch.float64)
