"""Learning rate schedules against formulas."""

import math
from itertools import pairwise

import pytest
import torch

from ghostnets.train import RECIPES, Recipe
from ghostnets.train.schedule import learning_rate


def test_warmup_is_linear_up_to_the_peak():
    for schedule in ("cosine", "linear", "step"):
        recipe = Recipe(epochs=20, lr=0.5, warmup=0.1, schedule=schedule, **_steps(schedule))
        rates = [learning_rate(recipe, epoch) for epoch in (0.0, 0.5, 1.0, 1.5)]
        differences = [b - a for a, b in pairwise(rates)]
        assert differences == pytest.approx([differences[0]] * 3)
        assert rates[0] == pytest.approx(0.04 * 0.5)
        assert learning_rate(recipe, 2.0) == pytest.approx(0.5)


def test_cosine_matches_torch():
    recipe = Recipe(epochs=16, lr=0.3, warmup=0.25)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for epoch in range(4, 17):
        assert learning_rate(recipe, epoch) == pytest.approx(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()


def test_linear_schedule_ends_at_zero():
    recipe = Recipe(epochs=10, lr=1.0, warmup=0.0, schedule="linear")
    assert [learning_rate(recipe, epoch) for epoch in (0, 2.5, 5, 10)] == pytest.approx([1, 0.75, 0.5, 0])


def test_step_schedules_of_the_papers():
    cifar = RECIPES["cifar10"]
    assert [learning_rate(cifar, e) for e in (0, 199.9, 200, 299.9, 300, 374.9, 375, 399.9)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    )
    v2 = RECIPES["imagenet-ghostnetv2"]
    for epoch in (3, 4.7, 4.9, 100, 449):
        assert learning_rate(v2, epoch) == pytest.approx(0.064 * 0.973 ** math.floor(epoch / 2.4))


def _steps(schedule: str) -> dict[str, tuple[float, ...]]:
    return {"milestones": (0.5,)} if schedule == "step" else {}
