"""Streaming statistics against numpy's least squares over all pixels at once."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ghostnets.compress.least_squares import MapStatistics, PairStatistics

SIZES = [(9, 7), (4, 3), (1, 6)]  # odd, smaller than the filter, single row


def lstsq(x: torch.Tensor, y: torch.Tensor, d: int) -> tuple[float, np.ndarray, float]:
    """Compute unexplained variance, filter and bias with numpy; x, y float64 (N, H, W)."""
    copies = F.unfold(x[:, None], d, padding=d // 2).transpose(1, 2).reshape(-1, d * d)
    regressors = torch.cat([copies, torch.ones(len(copies), 1, dtype=x.dtype)], dim=1).numpy()
    target = y.flatten().numpy()
    solution = np.linalg.lstsq(regressors, target, rcond=None)[0]
    residual = target - regressors @ solution
    return residual @ residual / np.square(target - target.mean()).sum(), solution[:-1].reshape(d, d), solution[-1]


def random_maps(height: int, width: int, *, smooth: bool = False) -> torch.Tensor:
    maps = torch.randn(12, 5, height, width, dtype=torch.float64) + torch.arange(5)[:, None, None]
    return F.avg_pool2d(maps, 3, stride=1, padding=1) if smooth else maps


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_r_squared_of_all_pairs_matches_lstsq(height: int, width: int, smooth: bool):
    maps = random_maps(height, width, smooth=smooth)
    sums = MapStatistics(5, (height, width))
    for batch in maps.split(5):
        sums.add(batch)
    r_squared = sums.r_squared()
    for i in range(5):
        for j in range(5):
            assert r_squared[i, j].item() == pytest.approx(1 - lstsq(maps[:, i], maps[:, j], 3)[0], abs=1e-9)
    pixels = maps.transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(sums.cosine(), np.corrcoef(pixels), atol=1e-12)
    np.testing.assert_allclose(sums.scatter(), np.cov(pixels, ddof=0) * pixels.shape[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("d", [1, 3, 5, 7])
def test_fit_matches_lstsq_for_every_filter_size(height: int, width: int, d: int):
    maps = random_maps(height, width)
    maps[:, 4] = 2  # constant
    pairs = [(0, 1), (0, 2), (3, 1), (0, 4)]  # pairs share a source
    sums = PairStatistics(*torch.tensor(pairs).T, (height, width), 7)
    for batch in maps.split(5):
        sums.add(batch)
    errors, filters, biases = sums.fit(d)
    assert errors[3].isnan()
    reach = min(d // 2, height - 1), min(d // 2, width - 1)  # taps beyond the map are undetermined
    for k, (i, j) in enumerate(pairs[:3]):
        error, kernel, bias = lstsq(maps[:, i], maps[:, j], d)
        assert errors[k].item() == pytest.approx(error, abs=1e-9)
        assert biases[k].item() == pytest.approx(bias, abs=1e-7)
        inner = np.s_[d // 2 - reach[0] : d // 2 + reach[0] + 1, d // 2 - reach[1] : d // 2 + reach[1] + 1]
        np.testing.assert_allclose(filters[k].numpy()[inner], kernel[inner], atol=1e-7)


def test_fit_recovers_conv2d_filter():
    maps = torch.randn(3, 2, 8, 8)
    kernel = torch.randn(1, 1, 3, 3)
    maps[:, 1:] = F.conv2d(maps[:, :1], kernel, padding=1) + 0.7
    sums = PairStatistics(torch.tensor([0]), torch.tensor([1]), (8, 8), 7)
    sums.add(maps)
    error, filters, bias = sums.fit(3)
    assert error.item() == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(filters[0].float(), kernel[0, 0], rtol=1e-5, atol=1e-5)
    assert bias.item() == pytest.approx(0.7, abs=1e-5)


def test_r_squared_in_float32_and_bfloat16_matches_float64():
    maps = F.avg_pool2d(torch.randn(8, 6, 20, 20) + 1, 5, stride=1)
    results = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        sums = MapStatistics(6, (16, 16))
        sums.add(maps.to(dtype))
        results.append(sums.r_squared())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=0.05)


def test_constant_map_has_zero_r_squared_cosine_and_scatter():
    maps = torch.randn(4, 3, 5, 5)
    maps[:, 1] = 0.1
    sums = MapStatistics(3, (5, 5))
    sums.add(maps)
    for table in (sums.r_squared(), sums.cosine(), sums.scatter()):
        assert table.isfinite().all()
        assert (table[1] == 0).all()
        assert (table[:, 1] == 0).all()
