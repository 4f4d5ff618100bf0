import torch

from ghostnets.layers import SqueezeExcite


def test_squeeze_excite_matches_definition():
    module = SqueezeExcite(6, 3)
    x = torch.randn(2, 6, 5, 4) * 4
    squeezed = x.mean((2, 3))
    hidden = (squeezed @ module.conv_reduce.weight[:, :, 0, 0].T + module.conv_reduce.bias).clamp_min(0)
    gate = hidden @ module.conv_expand.weight[:, :, 0, 0].T + module.conv_expand.bias
    gate = (gate + 3).clamp(0, 6) / 6
    torch.testing.assert_close(module(x), x * gate[:, :, None, None])
