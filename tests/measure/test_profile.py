import pytest
import torch
from torch import nn

from ghostnets.measure import MachineLimits, count, profile
from ghostnets.models import create_model

FLOAT = 4  # bytes


class ConcatBlock(nn.Module):
    """(N, 2, 8, 8) -> (N, 5, 8, 8): three maps of a convolution, concatenated with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.identity = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.identity(self.conv(x)), x], 1)


def test_profile_bytes_match_hand_count():
    image = 64 * FLOAT
    limits = MachineLimits(1, {"f32": 1e6}, ((10**9, 1e9),))
    result = profile(ConcatBlock(), torch.randn(2, 2, 8, 8), limits=limits, runs=2)
    rows = {row.name: row for row in result.modules}
    assert list(rows) == ["", "conv"]  # the identity calls no operator
    conv, concat = rows["conv"], rows[""]
    assert (conv.kind, concat.kind) == ("conv 3x3", "ConcatBlock")
    assert conv.macs == 2 * 64 * 3 * 2 * 9
    assert conv.moved_bytes == 3 * 2 * 9 * FLOAT + 2 * (2 + 3) * image
    assert conv.output_bytes == 2 * 3 * image
    assert conv.peak_bytes == 2 * (2 + 3) * image
    assert concat.peak_bytes == 2 * (2 + 3 + 5) * image == result.peak_bytes
    assert conv.ideal_seconds == pytest.approx(conv.macs / 1e6)  # compute-bound
    assert conv.share_of_limit == pytest.approx(conv.ideal_seconds / conv.seconds)
    assert concat.ideal_seconds is None
    assert result.ideal_seconds == conv.ideal_seconds
    assert result.input_shape == (2, 2, 8, 8)


class Repeated(nn.Module):
    """A convolution that runs twice, on 8 x 8 and on 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x)[:, :, ::2, ::2])


def test_module_that_runs_twice_has_the_sums_of_its_runs():
    limits = MachineLimits(1, {"f32": 1e6}, ((10**9, 1e9),))
    (conv,) = (row for row in profile(Repeated(), torch.randn(3, 2, 8, 8), limits=limits, runs=2).modules if row.name)
    assert conv.macs == 3 * (64 + 16) * 2 * 2 * 9
    assert conv.output_bytes == 3 * 2 * (64 + 16) * FLOAT
    assert conv.moved_bytes == 2 * 2 * 2 * 9 * FLOAT + 2 * conv.output_bytes
    assert conv.ideal_seconds == pytest.approx(conv.macs / 1e6)


def test_in_place_operator_allocates_no_second_map():
    def peak(inplace: bool) -> int:
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=inplace))
        return profile(model, torch.randn(1, 1, 8, 8), runs=1).peak_bytes

    assert peak(inplace=False) - peak(inplace=True) == 64 * FLOAT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_profile_of_whole_network_is_consistent_with_count(dtype: torch.dtype):
    model = create_model("ghostnet_050", num_classes=5).train().to(dtype)
    model.bn1.eval()
    x = torch.randn(2, 3, 64, 64, dtype=dtype)
    result = profile(model, x, runs=2)
    assert sum(row.macs for row in result.modules) == 2 * count(model, (3, 64, 64)).macs
    kinds = result.by_kind()
    assert sum(macs for _, macs, _ in kinds.values()) == sum(row.macs for row in result.modules)
    assert sum(number for *_, number in kinds.values()) == len(result.modules)
    assert {"conv 1x1", "depthwise 3x3", "linear", "GhostModule"} <= set(kinds)  # the concatenation
    assert result.precision == {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
    assert all(row.seconds > 0 for row in result.modules)
    assert result.ideal_seconds is None
    assert model.training
    assert not model.bn1.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
