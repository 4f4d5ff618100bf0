"""The recipes of docs/detection.md: detectors of torchvision on backbones of this package."""

import re

import pytest
import torch
from conftest import python_examples
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

RECIPES = {
    title: code
    for _, code in python_examples("docs/detection.md")
    for title in re.findall("import (RetinaNet|FasterRCNN|FCOS|SSD)$", code, re.MULTILINE)
}
KINDS = {"RetinaNet": RetinaNet, "FasterRCNN": FasterRCNN, "FCOS": FCOS, "SSD": SSD}
# Of each recipe with other sizes: the documented ones train for minutes on a core.
SMALL = {"ghostnet_100": "ghostnet_050", "min_size=800": "min_size=96", "(320, 320)": "(96, 96)", "256": "32"}


def test_every_recipe_is_tested():
    assert sorted(RECIPES) == sorted(KINDS)


@pytest.mark.parametrize("title", sorted(KINDS))
def test_recipe_trains_and_predicts(title: str):
    code = RECIPES[title]
    for old, new in SMALL.items():
        code = code.replace(old, new)
    names: dict = {}
    exec(compile(code, title, "exec"), names)
    model = names["detector"]
    assert type(model) is KINDS[title]
    images = [torch.rand(3, 96, 80), torch.rand(3, 64, 96)]
    targets = [
        {"boxes": torch.tensor([[4.0, 8, 60, 50]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[20.0, 8, 50, 60], [2, 2, 30, 30]]), "labels": torch.tensor([2, 1])},
    ]
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    first = next(parameter for name, parameter in model.backbone.named_parameters() if "conv_stem" in name)
    assert first.grad.any()  # the whole backbone is trained
    model.eval()
    with torch.no_grad():
        found = model(images)
    assert [sorted(one) for one in found] == [["boxes", "labels", "scores"]] * 2
