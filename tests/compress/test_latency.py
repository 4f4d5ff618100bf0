"""A budget of measured time, with a timer whose times are known."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets import ghostify
from ghostnets.compress import Timer, analyse
from ghostnets.errors import ConfigurationError
from ghostnets.layers import GhostConv2d
from ghostnets.measure import count

IMAGES = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
OVERHEAD = 1e-6  # seconds of what no change can save


class Plain(nn.Module):
    """Convolutions whose channels can be merged, beside some that can only become Ghost modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.back = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 48, 3, padding=1), nn.Conv2d(48, 16, 1)
        self.side, self.last, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 3), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.back(F.relu(self.wide(x)))
        x = x + self.side(x)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Plain().eval()


def make_timer(depthwise: float) -> Timer:
    """A nanosecond for each multiply-add, ``depthwise`` of them for those of depthwise filters."""

    def measure(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, float]:
        layers = count(network, shape).layers
        return {"": OVERHEAD} | {
            layer.name: 1e-9 * layer.macs * (depthwise if "depthwise" in layer.kind else 1) for layer in layers
        }

    return measure


@pytest.mark.parametrize("depthwise", [1, 30])
def test_time_of_the_network_is_within_the_budget(model: nn.Module, depthwise: float):
    timer = make_timer(depthwise)
    made, report = ghostify(model, IMAGES, budget=0.7, timer=timer)
    before, after = (sum(timer(network, (3, 16, 16)).values()) for network in (model, made))
    assert report.seconds == pytest.approx((before, after))
    assert 0.63 * before < after <= 0.7 * before
    assert report.to_dict()["seconds"] == report.seconds


def test_ghosts_that_take_longer_than_their_convolution_are_not_chosen(model: nn.Module):
    side = analyse(model, IMAGES, layers=["side"])
    made, _ = side.ghostify(0.95, timer=make_timer(1))
    assert isinstance(made.get_submodule("side"), GhostConv2d)
    with pytest.raises(ConfigurationError, match="the fastest of 8 networks takes"):
        side.ghostify(0.95, timer=make_timer(300))
    both = analyse(model, IMAGES, layers=["side", "wide"])
    made, report = both.ghostify(0.85, timer=make_timer(300))
    assert [change["conv"] for change in report.changes] == ["wide"]
    assert not any(isinstance(module, GhostConv2d) for module in made.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0.05, "timer": make_timer(1)}, "the fastest of 8 networks takes 0."),
        ({"timer": lambda *_: {"": 1.0}}, "the timer gives no time of any convolution"),
        ({"ratio": 2, "timer": make_timer(1)}, "a timer is given beside ratios"),
    ],
)
def test_invalid_timers_and_budgets_are_rejected(model: nn.Module, arguments: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        ghostify(model, IMAGES, **arguments)
