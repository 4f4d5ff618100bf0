import pytest
import torch
from torch.nn import functional as F

from ghostnets.layers import DFCGate, GhostModule


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_gate_matches_published_implementation(size, randomize):
    """Average pooling by 2, the six layers, sigmoid, nearest-neighbour upsampling, in functional form."""
    gate = randomize(DFCGate(5, 7))
    x = torch.randn(2, 5, *size)
    out = F.avg_pool2d(x, 2, 2)
    for convolution, norm in [(gate[0], gate[1]), (gate[2], gate[3]), (gate[4], gate[5])]:
        out = norm(F.conv2d(out, convolution.weight, padding=convolution.padding, groups=convolution.groups))
    expected = F.interpolate(torch.sigmoid(out), size=size, mode="nearest")
    torch.testing.assert_close(gate.gate(x, size), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1)])
def test_gate_does_not_pool_side_of_one_pixel(size, randomize):
    gate = randomize(DFCGate(5, 7))
    out = gate.gate(torch.randn(2, 5, *size), size)
    assert out.shape == (2, 7, *size)
    assert ((out > 0) & (out < 1)).all()


def test_gate_ignores_last_row_of_odd_map(randomize):
    """As in the published networks (7 x 7 maps at 224)."""
    gate = randomize(DFCGate(3, 4))
    x = torch.randn(1, 3, 7, 7)
    changed = x.clone()
    changed[:, :, 6] += 10
    assert torch.equal(gate.gate(x, (7, 7)), gate.gate(changed, (7, 7)))


def test_ghost_module_multiplies_output_by_gate(randomize):
    module = randomize(GhostModule(4, 7, dfc=True))
    x = torch.randn(1, 4, 6, 6)
    gated = module(x)
    gate, module.short_conv = module.short_conv, None
    torch.testing.assert_close(gated, module(x) * gate.gate(x, (6, 6)))
