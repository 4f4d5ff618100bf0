import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.data import ArrayDataset
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import ImagePredictions, evaluate
from ghostnets.train.evaluation import summarize


class Fixed(nn.Module):
    """Returns prepared logits, indexed by the first pixel of each image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[(x[:, 0, 0, 0] * 255).round().long()]


def test_evaluate_matches_plain_arithmetic():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 7, (50,), generator=generator)
    logits = torch.randn(50, 7, generator=generator)
    pixels = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 1, 2, 2).contiguous()
    preprocessing = Preprocessing(2, 2, (0.0,), (1.0,))
    names = tuple("abcdefg")
    result = evaluate(Fixed(logits), ArrayDataset(pixels, labels), preprocessing, names, batch_size=8)
    predictions = logits.argmax(1)
    assert result.images == 50
    assert result.top1 == pytest.approx((predictions == labels).float().mean().item())
    five = logits.topk(5).indices
    assert result.top5 == pytest.approx((five == labels[:, None]).any(1).float().mean().item())
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    for true in range(7):
        for predicted in range(7):
            assert result.confusion[true][predicted] == ((labels == true) & (predictions == predicted)).sum().item()
        row = result.classes[true]
        assert row.name == names[true]
        assert row.recall == pytest.approx(
            ((predictions == true) & (labels == true)).sum().item() / (labels == true).sum().item()
        )
        assert row.precision == pytest.approx(
            ((predictions == true) & (labels == true)).sum().item() / max(1, (predictions == true).sum().item())
        )


def test_top5_with_fewer_than_five_classes_is_one():
    pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    images = ArrayDataset(pixels, torch.tensor([0, 1, 0, 1]))
    result = evaluate(Fixed(torch.tensor([[1.0, 0.0]])), images, Preprocessing(2, 2, (0.0,), (1.0,)), ("a", "b"))
    assert (result.top1, result.top5) == (0.5, 1.0)


def test_evaluation_reports_intervals_the_baseline_and_undefined_shares():
    pixels = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 2, 2).contiguous()
    logits = torch.eye(3)[[0, 0, 0, 1, 0, 0]]
    images = ArrayDataset(pixels, torch.tensor([0, 0, 0, 1, 1, 0]))
    result = evaluate(Fixed(logits), images, Preprocessing(2, 2, (0.0,), (1.0,)), ("a", "b", "c"))
    values = result.to_dict()
    assert values["top1_interval"] == pytest.approx((0.436497, 0.969947), abs=1e-6)  # scipy's binomtest, method wilson
    assert values["baseline"] == {"class": "a", "top1": 4 / 6}
    assert "within the interval" in result.describe_baseline()
    absent = values["classes"][2]
    assert (absent["images"], absent["recall"], absent["precision"]) == (0, None, None)
    assert result.predictions.mistakes().tolist() == [4]
    assert result.mistakes == [(1, 0, 1)]


def test_result_of_many_classes_is_sparse():
    classes = 3000
    labels = torch.arange(50) * 7
    values = summarize(
        ImagePredictions(labels, labels.flip(0), torch.ones(50), torch.ones(50), torch.ones(50, dtype=torch.bool)),
        [str(i) for i in range(classes)],
    ).to_dict()
    assert values["confusion"] is None
    assert values["confusion_cells"][0] == (0, 343, 1)
    assert sum(count for *_, count in values["confusion_cells"]) == 50
    assert len(json.dumps(values, indent=2)) < 200 * classes


def test_evaluate_out_of_memory_halves_the_batch():
    sizes: list[int] = []

    class Limited(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x[:, 0, 0] * 9

    pixels = torch.tensor([[[[0, 255]]]] * 5, dtype=torch.uint8)
    images = ArrayDataset(pixels, torch.tensor([1, 1, 1, 1, 0]))
    result = evaluate(Limited(), images, Preprocessing(2, 2, (0.0,), (1.0,)), ("a", "b"), batch_size=8)
    assert (result.top1, sizes) == (0.8, [5, 4, 2, 2, 1])


def test_macro_f1_and_areas_match_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 4, (60,), generator=generator)
    logits = torch.randn(60, 5, generator=generator) + F.one_hot(labels, 5)  # the fifth class has no image
    pixels = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 1, 2, 2).contiguous()
    images, preprocessing = ArrayDataset(pixels, labels), Preprocessing(2, 2, (0.0,), (1.0,))
    result = evaluate(Fixed(logits), images, preprocessing, tuple("abcde"), keep_logits=True)
    assert result.macro_f1 == pytest.approx(metrics.f1_score(labels, logits.argmax(1), average="macro"))
    assert result.to_dict()["classes"][0]["f1"] == pytest.approx(
        metrics.f1_score(labels, logits.argmax(1), labels=[0], average="macro")
    )
    areas, probabilities = result.curve_areas, logits.softmax(1)
    assert areas is not None
    assert areas.roc[4] is areas.precision_recall[4] is None
    for index in range(4):
        truth = labels == index
        assert areas.roc[index] == pytest.approx(metrics.roc_auc_score(truth, probabilities[:, index]), abs=1e-6)
        expected = metrics.average_precision_score(truth, probabilities[:, index])
        assert areas.precision_recall[index] == pytest.approx(expected, abs=1e-6)
    assert areas.mean(areas.roc) == pytest.approx(sum(areas.roc[:4]) / 4)
    assert areas.mean((None,)) is None
    losses = result.predictions.losses[result.predictions.highest_losses()]
    assert len(losses) == 60
    assert torch.equal(losses, losses.sort(descending=True).values)


def test_evaluation_without_logits_has_no_areas():
    images = ArrayDataset(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    result = evaluate(Fixed(torch.tensor([[1.0, 0.0]])), images, Preprocessing(2, 2, (0.0,), (1.0,)), ("a", "b"))
    assert result.curve_areas is None
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert result.calibration_error == pytest.approx(torch.tensor([1.0, 0.0]).softmax(0)[0].item() - 0.5)
