"""Streamed least squares against lstsq, and choices of channels whose optimum is known."""

import pytest
import torch
from torch import nn

from ghostnets.compress.moments import Moments, select_predictors, select_sources


def test_solve_matches_lstsq_over_all_batches():
    torch.manual_seed(0)
    x = torch.randn(40, 7, 5, 3)
    y = torch.einsum("tp,nphw->nthw", torch.randn(7, 7), x * torch.tensor([0, 1, 0, 1, 0, 0, 1.0])[:, None, None]) + 3
    moments = Moments(7, 7)
    for start in range(0, 40, 9):
        moments.add(x[start : start + 9], y[start : start + 9])
    chosen = torch.tensor([6, 1, 3])
    matrix, offset = moments.solve(chosen)
    rows = torch.cat([x[:, chosen].transpose(0, 1).flatten(1), torch.ones(1, 600)]).T.double()
    expected = torch.linalg.lstsq(rows, y.transpose(0, 1).flatten(1).T.double()).solution.T
    torch.testing.assert_close(torch.cat([matrix, offset[:, None]], 1), expected, atol=2e-3, rtol=0)


def test_select_predictors_finds_the_channels_that_span_the_others():
    torch.manual_seed(0)
    basis = torch.randn(3, 5000, dtype=torch.float64)
    x = torch.cat([torch.randn(6, 3, dtype=torch.float64) @ basis, torch.zeros(1, 5000, dtype=torch.float64)])
    order, errors = select_predictors(torch.cov(x), None)
    assert sorted(order.tolist()) == list(range(7))
    assert errors[0] == pytest.approx(1)
    assert errors[2] > 0.01 > 0.001 > errors[3]
    assert (errors.diff() <= 0).all()


def test_select_predictors_prefers_channels_read_by_the_next_layer():
    weight = nn.Conv2d(4, 2, 3).weight.data
    weight[:, [0, 2, 3]] = 0
    order, errors = select_predictors(torch.diag(torch.tensor([9.0, 1.0, 4.0, 2.0], dtype=torch.float64)), weight)
    assert order[0] == 1
    assert errors[1] < 1e-3


def test_select_sources_covers_each_group_of_copies():
    torch.manual_seed(0)
    x = (
        torch.randn(3, 5000, dtype=torch.float64)[[0, 1, 0, 2, 1, 0, 2]]
        * torch.tensor([1, 2, -3, 1, 1, 2, -1.0])[:, None]
    )
    order, errors = select_sources(torch.cov(x))
    assert {(0, 1, 0, 2, 1, 0, 2)[i] for i in order[:3].tolist()} == {0, 1, 2}
    assert errors[3] < 1e-6 < 0.01 < errors[2]


def test_solve_of_more_channels_than_samples_predicts_other_samples():
    """24 independent channels, whose targets are themselves with noise: the half of them is predicted by its mean."""
    torch.manual_seed(0)
    moments, chosen = Moments(24, 24), torch.arange(12)
    x, fresh = torch.randn(16, 24, 1, 1), torch.randn(2000, 24, 1, 1)
    moments.add(x, x + 0.3 * torch.randn(x.shape))
    matrix, offset = moments.solve(chosen)
    predicted = (matrix @ fresh[:, chosen, 0, 0].T.double()).T + offset
    assert (predicted - fresh[:, :, 0, 0]).square().mean() < 0.65  # 0.5 at best, 1 without any prediction
