"""Inputs of layers of networks that run on from layer to layer, against forward hooks."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.compress import layer_inputs
from ghostnets.compress.layer_inputs import LayerInputs
from ghostnets.compress.sites import trace
from ghostnets.layers import narrow_conv


class Residual(nn.Module):
    """A network whose activation works in place on maps that a shortcut reads, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.head, self.scale = nn.Linear(6, 4), nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        x = self.second(F.relu_(self.first(x))) * self.scale + x
        return self.head(x.mean((2, 3)).reshape(x.shape[0], -1))


def input_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    found = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].clone()))
    model(x)
    handle.remove()
    return found[0]


@pytest.mark.parametrize(("traced", "held"), [(True, 1 << 20), (True, 3000), (False, 0)])
def test_inputs_and_outputs_match_hooks_while_layers_change(traced: bool, held: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layer_inputs, "HELD_BYTES", held)  # all batches, some, none
    torch.manual_seed(0)
    model, images = Residual().eval(), torch.randn(10, 3, 9, 7).split(4)
    inputs = LayerInputs(model, trace(model)[0] if traced else None, images)
    for layer in ("first", "head", "stem", "second"):  # also back
        for found, x in zip(inputs.at(layer), images, strict=True):
            torch.testing.assert_close(found, input_of(model, layer, x))
        torch.testing.assert_close(inputs.outputs(layer), torch.cat([model(x) for x in images]))
    kept = torch.tensor([1, 2, 5])
    list(inputs.at("second"))
    model.first, model.second = narrow_conv(model.first, outputs=kept), narrow_conv(model.second, inputs=kept)
    inputs.narrow("second", kept)
    for found, x in zip(inputs.at("second"), images, strict=True):
        torch.testing.assert_close(found, input_of(model, "second", x))
    torch.testing.assert_close(inputs.outputs("second"), torch.cat([model(x) for x in images]))


def test_outputs_keep_held_values_that_views_change_in_place():
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            halves = self.stem(x).chunk(2, 1)
            y = self.conv(halves[0])
            return torch.cat([y, halves[1].mul_(2), halves[1] + 1], 1)

    model, images = Halves().eval(), torch.randn(4, 3, 6, 6)
    inputs = LayerInputs(model, trace(model)[0], [images])
    with torch.no_grad():
        expected = model(images).flatten(1)
    for _ in range(3):
        torch.testing.assert_close(inputs.outputs("conv"), expected)
