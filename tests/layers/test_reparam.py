import pytest
import torch

from ghostnets.layers import RepConv


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(6, 6, 6), (6, 6, 2), (6, 12, 6), (5, 7, 1), (6, 6, 1)])
@pytest.mark.parametrize(("scale", "skip"), [(True, True), (True, False), (False, True), (False, False)])
def test_merged_preserves_output(kernel_size, stride, c_in, c_out, groups, scale, skip, randomize):
    options = {"stride": stride, "groups": groups, "branches": 3, "scale": scale, "skip": skip}
    layer = randomize(RepConv(c_in, c_out, kernel_size, **options))
    x = torch.randn(2, c_in, 9, 8)
    merged = layer.merged()
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-5, atol=1e-5)
    assert merged.weight.requires_grad
    assert sum(p.numel() for p in merged.parameters()) == c_out * (c_in // groups) * kernel_size**2 + c_out


def test_ignored_branches_are_not_built():
    def names(layer: RepConv) -> set[str]:
        return {key.split(".")[0] for key in layer.state_dict()}

    options = {"branches": 2, "scale": True, "skip": True}
    assert names(RepConv(4, 4, 3, **options)) == {"convs", "scale", "skip"}
    assert names(RepConv(4, 8, 3, **options)) == {"convs", "scale"}  # no identity to another number of channels
    assert names(RepConv(4, 4, 3, stride=2, **options)) == {"convs", "scale"}
    assert names(RepConv(4, 4, 1, **options)) == {"convs", "skip"}  # a 1 x 1 branch would be one more of the others
