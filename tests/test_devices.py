"""Device names."""

import pytest
import torch

from ghostnets import devices
from ghostnets.devices import select_device
from ghostnets.errors import ConfigurationError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Number of devices of each kind, to be set by a test."""
    counts: dict[str, int] = {}
    monkeypatch.setattr(devices, "_count", lambda kind: counts.get(kind, 0))
    return counts


def test_auto_is_the_accelerator_or_else_the_cpu(machine: dict[str, int]):
    assert select_device() == torch.device("cpu")
    machine["mps"] = 1
    assert select_device() == torch.device("mps")
    machine["cuda"] = 2
    assert select_device("auto") == torch.device("cuda")
    assert select_device("cuda:1") == torch.device("cuda:1")
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "the device is 'gpu'; it must be auto, cpu, cuda, mps or xpu"),
        ("cuda:first", "'cuda:first'; it must be"),
        ("cpu:1", "'cpu:1'; it must be"),
        ("cuda:2", "the device is cuda:2, but there are 2 of its kind"),
        ("xpu", "the device is xpu, but torch finds cuda and cpu"),
    ],
)
def test_unusable_names_are_rejected(machine: dict[str, int], name: str, message: str):
    machine["cuda"] = 2
    with pytest.raises(ConfigurationError, match=message):
        select_device(name)


def test_missing_accelerator_is_named(machine: dict[str, int]):
    with pytest.raises(ConfigurationError, match="torch finds no accelerator here; omit --device"):
        select_device("cuda")
