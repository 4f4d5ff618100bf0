import pytest
import torch
from torch import nn

from ghostnets.compress import fuse
from ghostnets.explain import collect_cheap_kernels, collect_ghost_maps
from ghostnets.explain.anatomy import CheapKernels
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


@pytest.mark.parametrize("ratio", [2, 4])
def test_each_ghost_stands_beside_the_map_it_is_made_from(ratio: int):
    """Planted: the cheap kernels multiply their intrinsic map by 2, 3, ...; every ghost is then a copy of it."""
    module = GhostModule(3, 4 * ratio, ratio=ratio, act=False).eval()
    kernels = module.cheap_operation[0].weight
    with torch.no_grad():
        kernels.zero_()
        for ghost in range(len(kernels)):
            kernels[ghost, 0, 1, 1] = 2 + ghost
    maps = collect_ghost_maps(nn.Sequential(module), torch.randn(1, 3, 6, 5))[0]
    assert maps.layer == "0"
    assert maps.intrinsic.shape == (4, 6, 5)
    assert maps.ghosts.shape == (4, ratio - 1, 6, 5)
    for i in range(4):
        for j in range(ratio - 1):
            factor = 2 + i * (ratio - 1) + j
            torch.testing.assert_close(maps.ghosts[i, j], maps.intrinsic[i] * factor, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps.similarity(), torch.ones(4, ratio - 1))


def test_similarity_is_the_cosine_of_centred_maps_and_constant_maps_have_none():
    module = GhostModule(1, 2, act=False).eval()
    maps = collect_ghost_maps(nn.Sequential(module), torch.zeros(1, 1, 4, 4))[0]
    assert maps.similarity().isnan().all()
    maps = collect_ghost_maps(nn.Sequential(module), torch.randn(1, 1, 4, 4))[0]
    pair = torch.stack([maps.intrinsic.flatten(), maps.ghosts.flatten()])
    assert maps.similarity().item() == pytest.approx(torch.corrcoef(pair)[0, 1].item(), abs=1e-5)


def test_a_network_without_ghosts_has_none_and_hooks_are_gone():
    module = nn.Sequential(GhostModule(3, 4, ratio=1), GhostModule(4, 4))
    assert [maps.layer for maps in collect_ghost_maps(module.eval(), torch.randn(1, 3, 4, 4))] == ["1"]
    assert not any(m._forward_hooks for m in module.modules())


KERNELS = {
    "identity": [[0, 0, 0], [0, -2, 0.1], [0, 0, 0]],
    "shift": [[0, 0, 0], [0, 0, 3], [0, 0, 0]],
    "blur": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    "edge": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "mixed": [[0, -1, 0], [-1, 3, 1], [0, 1, 0.5]],
    "nothing": [[0, 0, 0], [0, 1e-6, 0], [0, 0, 0]],
}


def test_kernels_are_told_apart_at_any_scale():
    for scale in (1.0, -0.01):
        weights = scale * torch.tensor(list(KERNELS.values())).reshape(3, 2, 3, 3)
        found = CheapKernels("x", weights)
        assert found.kinds() == list(KERNELS)
    distances = found.distance_from_identity().flatten()
    assert distances[0].item() == pytest.approx((0.01 / 4.01) ** 0.5, rel=1e-4)
    assert distances[1].item() == 1
    assert distances[2].item() == pytest.approx((1 - 16 / 36) ** 0.5)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv3_050"])
def test_folded_kernels_are_those_of_the_fused_network(name: str, randomize):
    """Two ways to the same kernels: folded here, and by ``fuse``; ratio 3 has two ghosts for each map."""
    model = randomize(create_model(name, width=0.15, ratio=3))
    found, fused = collect_cheap_kernels(model), collect_cheap_kernels(fuse(model))
    assert len(found) == 32
    for ours, theirs in zip(found, fused, strict=True):
        assert ours.layer == theirs.layer
        assert ours.kernels.shape[1:] == (2, 3, 3)
        torch.testing.assert_close(ours.kernels, theirs.kernels, rtol=1e-4, atol=1e-5)


def test_a_network_without_ghosts_has_no_cheap_kernels():
    assert collect_cheap_kernels(nn.Sequential(GhostModule(3, 4, ratio=1))) == []
