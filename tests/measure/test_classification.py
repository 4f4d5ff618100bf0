"""Measures of classifiers against scikit-learn and against their definitions."""

import numpy as np
import pytest

from ghostnets.errors import ConfigurationError
from ghostnets.measure import average_precision, calibration_error, fit_temperature, roc_area


@pytest.mark.parametrize("digits", [1, 8])  # many ties, none
def test_areas_match_scikit_learn(digits: int):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(digits)
    for share in (0.02, 0.5, 0.9):
        is_positive = generator.random(301) < share
        scores = (generator.normal(size=301) + is_positive).round(digits)
        assert roc_area(scores, is_positive) == pytest.approx(metrics.roc_auc_score(is_positive, scores), abs=1e-12)
        expected = metrics.average_precision_score(is_positive, scores)
        assert average_precision(scores, is_positive) == pytest.approx(expected, abs=1e-12)


def test_areas_of_small_cases_follow_their_definitions():
    scores, is_positive = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])
    assert roc_area(scores, is_positive) == (2 + 1.5) / 4
    assert average_precision(scores, is_positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert roc_area(scores, np.ones(4, bool)) is None
    assert average_precision(scores, np.zeros(4, bool)) is None


def test_calibration_error_is_the_mean_gap_of_the_bins():
    confidences, is_correct = np.array([0.95, 0.97, 0.55, 0.6, 1.0]), np.array([True, False, True, True, True])
    gaps = [abs(0.95 + 0.97 + 1.0 - 2), abs(0.55 + 0.6 - 2)]  # bins (0.9, 1] and (0.5, 0.6]
    assert calibration_error(confidences, is_correct, bins=10) == pytest.approx(sum(gaps) / 5)


def test_calibration_error_matches_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), 200)
    labels = generator.integers(0, 4, 200)
    confidences, is_correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 4, n_bins=15
    )
    assert calibration_error(confidences, is_correct) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_fit_temperature_recovers_temperature_of_labels(temperature: float):
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(20_000, 5)) * 2
    powers = np.exp(logits / temperature)
    labels = (powers.cumsum(1) < generator.random(20_000)[:, None] * powers.sum(1, keepdims=True)).sum(1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_fitted_temperature_has_the_lowest_cross_entropy():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 50)
    logits = generator.normal(size=(50, 3)) * 5 + 4 * np.eye(3)[labels]

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(50), labels]).mean())

    best = fit_temperature(logits, labels)
    assert 0.05 < best < 20
    assert loss(best) <= min(loss(0.99 * best), loss(1.01 * best))


def test_temperature_of_perfect_scores_is_bounded():
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) == 0.05


def test_temperature_without_images_is_rejected():
    with pytest.raises(ConfigurationError, match=r"cannot be fitted to scores of shape \(0, 3\)"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
