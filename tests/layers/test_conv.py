import pytest
import torch
from torch import nn

from ghostnets.layers import fold_batch_norm, make_divisible


@pytest.mark.parametrize(("value", "expected"), [(1, 4), (8, 8), (10, 12), (31.2, 32), (18, 20), (5, 8), (4.4, 4)])
def test_make_divisible(value: float, expected: int):
    assert make_divisible(value) == expected


def test_make_divisible_rounds_down_by_at_most_ten_percent():
    for value in range(4, 2000):
        result = make_divisible(value * 0.7)
        assert result % 4 == 0
        assert result >= 0.9 * value * 0.7


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_fold_batch_norm_preserves_output(bias: bool, layer: str, randomize):
    if layer == "conv":
        affine, norm, x = nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5), torch.randn(2, 3, 7, 7)
    else:
        affine, norm, x = nn.Linear(3, 5, bias=bias), nn.BatchNorm1d(5), torch.randn(4, 3)
    randomize(norm)
    expected = norm(affine(x))
    weight, shift = fold_batch_norm(
        affine.weight,
        affine.bias,
        running_mean=norm.running_mean,
        running_var=norm.running_var,
        gamma=norm.weight,
        beta=norm.bias,
        eps=norm.eps,
    )
    affine.weight.data, affine.bias = weight.data, nn.Parameter(shift)
    torch.testing.assert_close(affine(x), expected, rtol=1e-5, atol=1e-5)
