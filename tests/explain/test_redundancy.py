"""Planted redundancy is measured exactly."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from ghostnets.errors import ConfigurationError
from ghostnets.explain import measure_redundancy
from ghostnets.explain.redundancy import linear_cka, select_intrinsic
from ghostnets.layers import GhostModule


def noise(channels: int, *, images: int = 24, size: int = 12) -> Callable[[], Iterable[Tensor]]:
    pixels = torch.randn(images, channels, size, size)
    return lambda: pixels.split(10)


def test_ghosts_of_linear_ghost_module_are_recovered(randomize):
    """Every ghost of a linear Ghost module of ratio 2 is a 3 x 3 filter of one intrinsic map."""
    model = randomize(nn.Sequential(GhostModule(9, 14, ratio=2, act=False)))
    layer = measure_redundancy(model, noise(9)).layers[0]
    assert (layer.layer, layer.channels, layer.size, layer.constant) == ("0", 14, (12, 12), 0)
    assert sorted(layer.intrinsic) == list(range(7))
    assert sorted(layer.ghosts) == [(7 + i, i) for i in range(7)]
    assert layer.errors[1] > 0.3
    for d in (3, 5, 7):
        assert layer.errors[d] == pytest.approx(0, abs=1e-9)  # larger filters contain the smaller ones
    assert layer.good == {1: 0.0, 3: 1.0, 5: 1.0, 7: 1.0}
    assert layer.explained[2] == pytest.approx(1, abs=1e-4)
    assert layer.explained[8] < 0.5


def test_copies_and_negatives_are_near_duplicates():
    convolution = nn.Conv2d(6, 7, 1)
    with torch.no_grad():
        convolution.weight[4:6] = torch.stack([2 * convolution.weight[0], -convolution.weight[1]])
        convolution.weight[6] = 0  # a constant map
    layer = measure_redundancy(nn.Sequential(convolution), noise(6)).layers[0]
    assert layer.constant == 1
    assert layer.duplicates_90 == layer.duplicates_95 == pytest.approx(4 / 6)
    assert {(first, second) for first, second, _ in layer.pairs[:2]} == {(0, 4), (1, 5)}
    assert sorted(cosine for *_, cosine in layer.pairs[:2]) == pytest.approx([-1, 1], abs=1e-5)
    assert all(6 not in pair for pair in layer.ghosts)
    assert layer.good[1] == pytest.approx(2 / 3)  # one map of each pair predicts the other; 2 and 3 are unrelated


def test_measure_redundancy_is_independent_of_batch_size():
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 6, 3, stride=2)).eval()
    pixels = torch.randn(9, 3, 14, 11)
    counted: list[int] = []
    one, other = (measure_redundancy(model, lambda n=n: pixels.split(n), on_batch=counted.append) for n in (9, 4))
    assert counted == [9, 9, 4, 4, 1, 4, 4, 1]
    assert one.images == other.images == 9
    for first, second in zip(one.layers, other.layers, strict=True):
        assert first.ghosts == second.ghosts
        assert first.errors == pytest.approx(second.errors, abs=1e-6)
        assert sorted(first.errors.values(), reverse=True) == list(first.errors.values())
    assert one.mean(lambda layer: layer.channels) == (10 * 10 + 6 * 6) / 16


def test_to_dict_keeps_twins_keys():
    redundancy = measure_redundancy(nn.Sequential(nn.Conv2d(3, 4, 1)), noise(3))
    result = redundancy.to_dict()
    assert list(result) == ["layers", "images"]
    assert result["layers"][0]["twins_90"] == redundancy.layers[0].duplicates_90
    assert result["layers"][0]["twins_95"] == redundancy.layers[0].duplicates_95
    assert "duplicates_90" not in result["layers"][0]


def test_select_intrinsic_is_greedy():
    r_squared = torch.tensor([[1.0, 0.9, 0.0, 0.2], [0.1, 1.0, 0.0, 0.0], [0.3, 0.0, 1.0, 0.8], [0.0, 0.4, 0.7, 1.0]])
    order, means = select_intrinsic(r_squared, 4)
    assert order.tolist()[:2] == [0, 2]  # gains: 2.1, 1.1, 2.1, 2.1 (the first of equals), then 0.1, 1.8, 1.5
    assert means.tolist()[:2] == pytest.approx([(0.9 + 0 + 0.2) / 3, (0.9 + 0.8) / 2])
    assert means[-1] == 1


def test_linear_cka_matches_definition():
    x, y = torch.randn(500, 4, dtype=torch.float64), torch.randn(500, 3, dtype=torch.float64)
    y[:, 0] = x[:, 0] + x[:, 1]
    both = torch.cat([x, y], dim=1)
    both = both - both.mean(0)
    first, second = torch.arange(4), torch.arange(4, 7)
    kernels = [both[:, group] @ both[:, group].T for group in (first, second)]
    expected = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
    assert linear_cka(both.T @ both, first, second) == pytest.approx(expected.item())
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    rotated = torch.cat([both[:, :4], both[:, :4] @ rotation], dim=1)
    assert linear_cka(rotated.T @ rotated, first, torch.arange(4, 8)) == pytest.approx(1)


def test_measure_redundancy_rejects_missing_layers_and_images():
    with pytest.raises(ConfigurationError, match="has no layer with several feature maps"):
        measure_redundancy(nn.Sequential(nn.Flatten()), noise(3))
    with pytest.raises(ConfigurationError, match="there is no image"):
        measure_redundancy(nn.Conv2d(3, 4, 1), lambda: iter(()))
