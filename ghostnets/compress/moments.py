"""Least squares between feature maps from streamed sums, and greedy selection of predictor channels."""

import torch
from torch import Tensor

__all__ = ["Moments", "predict_channels", "select_predictors", "select_sources"]

RIDGE = 1e-4  # times the mean variance: keeps the solution for nearly collinear or few samples bounded


class Moments:
    """Streamed first and second moments of predictors x and targets y, channel by channel.

    Args:
        predictors: Number P of channels of x.
        targets: Number T of channels of y.
    """

    def __init__(self, predictors: int, targets: int) -> None:
        self.count = 0
        self.x_total = torch.zeros(predictors, dtype=torch.float64)
        self.y_total = torch.zeros(targets, dtype=torch.float64)
        self.xx = torch.zeros(predictors, predictors, dtype=torch.float64)
        self.xy = torch.zeros(predictors, targets, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Accumulate maps (N, P, ...) and (N, T, ...); products in float32, sums in float64."""
        x, y = (maps.detach().float().cpu().transpose(0, 1).flatten(1) for maps in (x, y))
        self.count += x.shape[1]
        self.x_total += x.sum(1, dtype=torch.float64)
        self.y_total += y.sum(1, dtype=torch.float64)
        self.xx += x @ x.T
        self.xy += x @ y.T

    def covariance(self) -> Tensor:
        """Return the covariance of x, (P, P), float64."""
        mean = self.x_total / self.count
        return self.xx / self.count - torch.outer(mean, mean)

    def cross_covariance(self) -> Tensor:
        """Return the covariance of x and y, (P, T), float64."""
        return self.xy / self.count - torch.outer(self.x_total, self.y_total) / self.count**2

    def solve(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrix A (T, len(chosen)) and the offset c (T,) of the best prediction y = A x[chosen] + c."""
        matrix = predict_channels(self.covariance(), self.cross_covariance(), chosen)
        offset = (self.y_total - matrix @ self.x_total[chosen]) / self.count
        return matrix, offset


def predict_channels(covariance: Tensor, cross: Tensor, chosen: Tensor) -> Tensor:
    """Return A (T, len(chosen)) that minimises the error of ``y = A x[chosen]`` for centred x and y.

    Args:
        covariance: Covariance of x, (P, P).
        cross: Covariance of x and y, (P, T).
        chosen: Indices of the predictors, int64.
    """
    inner = covariance[chosen][:, chosen]
    ridge = RIDGE * inner.diagonal().mean() + torch.finfo(torch.float32).tiny
    return torch.linalg.solve(inner + ridge * torch.eye(len(chosen), dtype=inner.dtype), cross[chosen]).T


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
