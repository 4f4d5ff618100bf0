import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from graphs import EVERY_GRAPH, create_shallow
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ghostnets.measure import count


def test_count_matches_formula():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    cost = count(model, (3, 9, 7))
    assert [layer.kind for layer in cost.layers] == ["conv 3x3", "depthwise 5x5", "linear"]
    assert [layer.macs for layer in cost.layers] == [5 * 4 * 8 * 3 * 9, 5 * 4 * 8 * 25, 8 * 5]
    assert [layer.params for layer in cost.layers] == [8 * 27 + 8, 8 * 25 + 8, 45]
    assert cost.layers[0].output_shape == (8, 5, 4)
    assert cost.activation_bytes == 4 * (8 * 20 + 8 * 20 + 5)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.not_counted == {"BatchNorm2d": 1, "ReLU": 1, "AdaptiveAvgPool2d": 1, "Flatten": 1}


def test_transposed_convolutions_are_counted_as_torch_does():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, groups=4), nn.ReLU()),
        nn.ConvTranspose2d(12, 4, 2, stride=2),
    )
    cost = count(model, (3, 9, 7))
    assert [layer.kind for layer in cost.layers] == ["conv 3x3", "transposed conv 3x3", "transposed conv 2x2"]
    assert [layer.macs for layer in cost.layers] == [7 * 5 * 8 * 27, 7 * 5 * 8 * 3 * 9, 13 * 9 * 12 * 4 * 4]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 9, 7))
    assert counter.get_total_flops() == 2 * cost.macs


class WindowedLinear(nn.Module):
    """A linear layer on windows of 4 x 4 pixels, which are the batch of its input, as in a Swin Transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        windows = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        return self.linear(windows)


def test_windows_of_an_image_are_counted_as_torch_does():
    model = WindowedLinear()
    cost = count(model, (3, 8, 12))
    assert cost.macs == 8 * 12 * 3 * 5
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 8, 12))
    assert counter.get_total_flops() == 2 * cost.macs


def test_networks_with_complex_parameters_are_counted_on_real_images():
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    model.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    assert count(model, (3, 9, 7)).macs == 7 * 5 * 8 * 27


@pytest.mark.parametrize("name", EVERY_GRAPH)
def test_count_is_half_of_torch_flop_counter(name: str):
    """torch counts two FLOPs for each multiply-add."""
    model = create_shallow(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() == 2 * count(model, (3, 64, 64)).macs


@pytest.mark.parametrize("name", EVERY_GRAPH)
def test_count_matches_fvcore_on_convolutions_and_linear_layers(name: str):
    """fvcore also counts normalisation, pooling and upsampling, which no paper's FLOPs include."""
    model = create_shallow(name).eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 64, 64))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    assert by_operator["conv"] + by_operator["linear"] == count(model, (3, 64, 64)).macs
    others = set(by_operator) - {"conv", "linear"}
    assert others <= {"batch_norm", "adaptive_avg_pool2d", "mean", "upsample_nearest2d"}


def test_count_leaves_third_party_model_unchanged():
    model = timm.create_model("mobilenetv3_large_100").train()
    model.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert 210e6 < count(model, (3, 224, 224)).macs < 225e6  # published: 219 M
    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
