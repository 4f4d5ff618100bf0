import pytest
import torch
from torch import Tensor, nn

from ghostnets.explain import measure_ghost_ablation
from ghostnets.layers import GhostModule


class GhostClassifier(nn.Module):
    """Predicts class 1 if the ghost, the negative of its intrinsic map, is below zero; depends on the ghost alone."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.plain = GhostModule(1, 1, ratio=1, act=False)
        self.ghost = GhostModule(1, ratio, ratio=ratio, act=False)
        with torch.no_grad():
            self.plain.primary_conv[0].weight.fill_(1)
            self.ghost.primary_conv[0].weight.fill_(1)
            self.ghost.cheap_operation[0].weight.zero_()
            self.ghost.cheap_operation[0].weight[:, 0, 1, 1] = -1

    def forward(self, x: Tensor) -> Tensor:
        last = self.ghost(self.plain(x))[:, -1].mean((1, 2))
        return torch.stack([last + 0.01, -last], dim=1)


@pytest.mark.parametrize("ratio", [2, 3])
def test_ghost_ablation_changes_accuracy_of_ghost_classifier(ratio: int):
    x = torch.tensor([1.0, 2, 3, -1]).reshape(4, 1, 1, 1).expand(4, 1, 5, 5)
    labels = torch.tensor([1, 1, 1, 0])
    model = GhostClassifier(ratio).eval()
    calls: list[int] = []
    batches = list(zip(x.split(3), labels.split(3), strict=True))
    result = measure_ghost_ablation(model, lambda: batches, on_layer=lambda: calls.append(1))
    assert (result.images, result.top1) == (4, 1.0)
    layer, *others = result.layers
    assert not others  # the module of ratio 1 has no ghosts
    assert (layer.layer, layer.ghosts, layer.copies, layer.zeros) == ("ghost", ratio - 1, 0.0, 0.25)
    assert calls == [1]
    assert not any(module._forward_hooks for module in model.modules())
