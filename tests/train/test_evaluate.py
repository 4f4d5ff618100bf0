import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.data import ArrayDataset
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import evaluate


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
