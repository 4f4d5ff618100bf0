import pytest
import torch

from ghostnets.measure import MachineLimits, limits, measure_limits


def test_bandwidth_returns_value_of_next_larger_working_set():
    machine = MachineLimits(1, {"f32": 1e9}, ((100, 9.0), (1000, 4.0), (10000, 1.0)))
    assert [machine.bandwidth(size) for size in (1, 100, 101, 9999, 10**9)] == [9.0, 9.0, 4.0, 1.0, 1.0]


def test_measure_limits_covers_every_supported_precision(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SECONDS", 0.01)
    monkeypatch.setattr(limits, "MATRIX_SIDE", 64)
    monkeypatch.setattr(limits, "CONV_SIDE", 8)
    monkeypatch.setattr(limits, "WORKING_SETS", (1 << 16, 1 << 20))
    machine = measure_limits(threads=1)
    assert machine.threads == 1
    assert {"f32", "bf16"} <= set(machine.macs_per_second)
    assert all(speed > 0 for speed in machine.macs_per_second.values())
    assert [size for size, _ in machine.bytes_per_second] == [1 << 16, 1 << 20]

    def reject(*_: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(torch, "_int_mm", reject)
    monkeypatch.setattr(torch, "mm", reject)
    assert set(measure_limits(threads=1).macs_per_second) == {"f32", "bf16"}  # from the convolution
