"""Precision and threads by measurement: with a native module whose runs take given times, and with the real one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ghostnets import engine
from ghostnets.engine import choice
from ghostnets.engine.choice import PrecisionChoice, allowed_precisions, choose
from ghostnets.engine.plan import Layout, Plan
from ghostnets.errors import ConfigurationError
from ghostnets.models import create_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    """A cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ghostnets" / "engine"


@pytest.fixture
def native(monkeypatch) -> Callable[..., Any]:
    """A native module whose runs take the given times; ``made`` counts its sessions."""

    def make(times: dict[tuple[str, int], float], noise: Iterator[float] | None = None) -> Any:
        clock = [0.0]
        made: list[str] = []
        monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

        def session(precision: str, threads: int) -> Any:
            made.append(precision)

            def run(*_: Any) -> None:
                clock[0] += times[precision, threads] * (next(noise) if noise else 1)

            return SimpleNamespace(run=run, share_weights=lambda n: session(precision, n))

        return SimpleNamespace(
            made=made,
            instruction_sets=lambda: ["best", "other"],
            Session=lambda plan, _, threads, __: session(plan["precision"], threads),
        )

    return make


def plan(precision: str = "auto", *, calibrated: bool = False) -> Plan:
    return Plan(3, precision, layouts=[Layout(4)], outputs=[0], ranges=["range"] if calibrated else [])


@pytest.mark.parametrize(
    ("bf16", "expected"), [(2.0, "f32"), (1.0, "f32"), (0.98, "f32"), (0.9, "bf16"), (0.5, "bf16")]
)
def test_bf16_is_chosen_only_where_clearly_faster(native, bf16: float, expected: str):
    found = choose(plan(), native({("f32", 1): 1e-3, ("bf16", 1): bf16 * 1e-3}), threads=1, isa=None, image_size=32)
    assert (found.precision, found.threads, found.isa) == (expected, 1, "best")
    assert found.milliseconds == {"f32, 1 thread": 1.0, "bf16, 1 thread": pytest.approx(bf16)}


def test_fewer_threads_are_chosen_where_faster_and_told(native):
    times = {("f32", 3): 3e-3, ("f32", 1): 1e-3, ("bf16", 3): 4e-3, ("bf16", 1): 2e-3}
    found = choose(plan(), native(times), threads=3, isa=None, image_size=32)
    assert (found.precision, found.threads) == ("f32", 1)
    assert str(found).startswith("f32, 1 thread, fewer than the 3 allowed, the fastest on this machine (best;")


def test_choice_is_measured_once(native, cache: Path):
    times = {("f32", 1): 1e-3, ("bf16", 1): 5e-4, ("int8", 1): 2e-4}
    first = native(times)
    found = choose(plan(calibrated=True), first, threads=1, isa=None, image_size=32)
    assert found.precision == "int8"
    assert len(first.made) == 3
    again = native(times)
    assert choose(plan(calibrated=True), again, threads=1, isa=None, image_size=32) == found
    assert not again.made
    choose(plan(calibrated=True), again, threads=1, isa="other", image_size=32)  # other circumstances
    assert len(again.made) == 3
    for content in ["", "[]", "{}", '{"precision": "int4"}', "[" * 100_000]:
        for file in cache.iterdir():
            file.write_text(content)
        assert choose(plan(calibrated=True), native(times), threads=1, isa=None, image_size=32) == found


def test_busy_measurement_is_told_and_not_kept(native, cache: Path):
    noise = iter([1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0] * 1000)
    found = choose(plan(), native({("f32", 1): 1e-3, ("bf16", 1): 1e-3}, noise), threads=1, isa=None, image_size=32)
    assert found.was_busy
    assert "was busy" in str(found)
    assert not cache.exists()


def test_cache_that_cannot_be_written_is_no_error(native, cache: Path):
    cache.parent.write_text("a file in its place")
    assert choose(plan(), native({("f32", 1): 1.0, ("bf16", 1): 0.5}), threads=1, isa=None, image_size=8).threads == 1


def test_auto_is_never_less_precise_than_the_plan():
    assert allowed_precisions(plan("f32", calibrated=True)) == ["f32"]
    assert allowed_precisions(plan("bf16")) == ["f32", "bf16"]
    assert allowed_precisions(plan("int8", calibrated=True)) == ["f32", "bf16", "int8"]
    assert allowed_precisions(plan()) == ["f32", "bf16"]
    assert allowed_precisions(plan(calibrated=True)) == ["f32", "bf16", "int8"]


def test_compiled_and_saved_network_chooses_and_gives_the_bits_of_its_precision(tmp_path: Path):
    model = create_model("ghostnet_050", num_classes=5).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    session = engine.compile(model, precision="auto", threads=2, image_size=32)
    assert isinstance(session.choice, PrecisionChoice)
    assert session.choice.allowed_threads == 2
    assert session.precision in ("f32", "bf16")
    assert session.threads in (1, 2)
    assert set(session.choice.milliseconds) == {f"{p}, {t}" for p in ("f32", "bf16") for t in ("2 threads", "1 thread")}
    session.save(tmp_path / "net.engine")
    for precision in ("f32", "bf16"):
        loaded = engine.load(tmp_path / "net.engine", precision=precision, threads=1)
        assert loaded.precision == precision
        assert loaded.choice is None
        np.testing.assert_array_equal(loaded(x), engine.compile(model, precision=precision, threads=1)(x))
    assert engine.load(tmp_path / "net.engine", threads=1).choice is not None
    with pytest.raises(ConfigurationError, match="precision is 'int8'; this plan can be run in auto, f32, bf16"):
        engine.load(tmp_path / "net.engine", precision="int8")
