import pytest
import torch
from torch import nn

from ghostnets.compress import fuse
from ghostnets.explain import collect_cheap_kernels, collect_ghost_maps
from ghostnets.explain.anatomy import CheapKernels
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


@pytest.mark.parametrize("ratio", [2, 4])
def test_collect_ghost_maps_pairs_ghosts_with_intrinsic_map(ratio: int):
    """The planted kernels scale their intrinsic map by 2, 3, ..., so every ghost is a multiple of it."""
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


def test_similarity_matches_corrcoef_and_is_nan_for_constant_maps():
    module = GhostModule(1, 2, act=False).eval()
    maps = collect_ghost_maps(nn.Sequential(module), torch.zeros(1, 1, 4, 4))[0]
    assert maps.similarity().isnan().all()
    maps = collect_ghost_maps(nn.Sequential(module), torch.randn(1, 1, 4, 4))[0]
    pair = torch.stack([maps.intrinsic.flatten(), maps.ghosts.flatten()])
    assert maps.similarity().item() == pytest.approx(torch.corrcoef(pair)[0, 1].item(), abs=1e-5)


def test_collect_ghost_maps_skips_modules_without_ghosts_and_removes_hooks():
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


def test_kernel_kinds_are_independent_of_scale():
    for scale in (1.0, -0.01):
        weights = scale * torch.tensor(list(KERNELS.values())).reshape(3, 2, 3, 3)
        kernels = CheapKernels("x", weights)
        assert kernels.kinds() == list(KERNELS)
    distances = kernels.distance_from_identity().flatten()
    assert distances[0].item() == pytest.approx((0.01 / 4.01) ** 0.5, rel=1e-4)
    assert distances[1].item() == 1
    assert distances[2].item() == pytest.approx((1 - 16 / 36) ** 0.5)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv3_050"])
def test_collected_kernels_match_those_of_fused_network(name: str, randomize):
    """``fuse`` folds the normalisation independently; ratio 3 has two ghosts per intrinsic map."""
    model = randomize(create_model(name, width=0.15, ratio=3))
    folded, fused = collect_cheap_kernels(model), collect_cheap_kernels(fuse(model))
    assert len(folded) == 32
    for actual, expected in zip(folded, fused, strict=True):
        assert actual.layer == expected.layer
        assert actual.kernels.shape[1:] == (2, 3, 3)
        torch.testing.assert_close(actual.kernels, expected.kernels, rtol=1e-4, atol=1e-5)


def test_collect_cheap_kernels_is_empty_without_ghosts():
    assert collect_cheap_kernels(nn.Sequential(GhostModule(3, 4, ratio=1))) == []
