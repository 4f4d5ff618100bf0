"""Interleaved benchmark of networks and inference backends."""

import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch

from ghostnets.bench.backends import BACKENDS, PRECISIONS, prepare
from ghostnets.bench.models import BenchmarkModel, create_benchmark_model
from ghostnets.errors import ConfigurationError, EngineError, UnknownNameError
from ghostnets.measure import Cost, Runner, Timing, count, processor_name, speedup, time_interleaved

__all__ = ["BenchmarkResult", "BenchmarkRow", "BenchmarkSettings", "run_benchmark"]

CALIBRATION_BATCHES = 8

_Key = tuple[str, str, str, int, int]  # network, backend, precision, batch, threads


@dataclass(frozen=True)
class BenchmarkSettings:
    """Combinations to benchmark: one row for each that the backend can run.

    Attributes:
        networks: Model names: registered here, ``"timm:NAME"`` or ``"torchvision:NAME"``.
        backends: Keys of ``BACKENDS``.
        batches: Batch sizes.
        threads: Numbers of threads per run.
        precisions: ``"f32"``, ``"bf16"``, ``"int8"``.
        image_size: Side of the input in pixels; each network's own by default.
        runs: Minimum number of timed runs of each row.
        rounds: Number of interleaved blocks that the runs are distributed over.
    """

    networks: tuple[str, ...]
    backends: tuple[str, ...]
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    precisions: tuple[str, ...] = ("f32",)
    image_size: int | None = None
    runs: int = 200
    rounds: int = 10


@dataclass(frozen=True)
class BenchmarkRow:
    """Result of one combination.

    Attributes:
        network, backend, precision, batch, threads: The combination.
        image_size: Side of the input in pixels.
        params: Number of parameters of the network.
        macs: Multiply-adds for one image.
        top1: Published ImageNet accuracy in per cent, or None; not measured here.
        accuracy_source: Publisher of ``top1``.
        seconds: Time of one run.
        times_as_fast: Speedup over the baseline's row of the same batch size and threads: lower quartile, median, upper
            quartile over the rounds.
        difference: Largest absolute difference from the float32 output of eager PyTorch, relative to the largest
            absolute output.
    """

    network: str
    backend: str
    precision: str
    batch: int
    threads: int
    image_size: int
    params: int
    macs: int
    top1: float | None
    accuracy_source: str
    seconds: Timing
    times_as_fast: tuple[float, float, float]
    difference: float

    @property
    def images_per_second(self) -> float:
        return self.batch / self.seconds.median


@dataclass(frozen=True)
class BenchmarkResult:
    """Result of ``run_benchmark``.

    Attributes:
        rows: One entry per combination, in the order of the settings.
        left_out: One sentence for each combination that cannot run.
        baseline: Network, backend and precision of the rows that speedups refer to.
        processor, platform, versions, date: Environment of the benchmark.
        settings: The requested combinations.
    """

    rows: tuple[BenchmarkRow, ...]
    left_out: tuple[str, ...]
    baseline: tuple[str, str, str]
    processor: str
    platform: str
    versions: dict[str, str]
    date: str
    settings: BenchmarkSettings

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_benchmark(
    settings: BenchmarkSettings,
    *,
    baseline: str | None = None,
    on_row: Callable[[str], None] = lambda name: None,
    on_block: Callable[[], None] = lambda: None,
) -> BenchmarkResult:
    """Build every combination of the settings, then time all of them interleaved.

    Weights and inputs are random; neither affects the time of these networks. int8 is calibrated on random inputs as
    well, so its ``difference`` does not predict the accuracy of a quantised network on images.

    Args:
        settings: Combinations to benchmark.
        baseline: Backend that speedups refer to, with the first network, in the first of the precisions that it
            supports; the first backend by default.
        on_row: Called with the name of each combination before it is built.
        on_block: Called after each block of runs.

    Raises:
        UnknownNameError, ConfigurationError: An unknown name, or a number out of range.
        MissingExtraError: A backend is not installed; the message gives the pip command.
    """
    _validate(settings, baseline)
    threads_before = torch.get_num_threads()
    try:
        combinations, left_out = _build_all(settings, on_row)
        reference = _select_baseline(settings, baseline)
        _check_baseline(settings, reference, combinations, left_out)
        runners = {_name(key): combination.runner for key, combination in combinations.items()}
        timings = time_interleaved(runners, runs=settings.runs, rounds=settings.rounds, on_block=on_block)
    finally:
        torch.set_num_threads(threads_before)

    rows = []
    for key, (model, cost, _, difference) in combinations.items():
        *_, batch, threads = key
        timing = timings[_name(key)]
        rows.append(
            BenchmarkRow(
                *(*key, model.image_size, cost.params, cost.macs, model.top1, model.accuracy_source, timing),
                speedup(timings[_name((*reference, batch, threads))], timing),
                difference,
            )
        )
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {BACKENDS[name].libraries[0]: BACKENDS[name].version for name in settings.backends}
    return BenchmarkResult(
        tuple(rows),
        tuple(dict.fromkeys(left_out)),
        reference,
        processor_name(),
        platform.platform(),
        versions,
        datetime.now(UTC).isoformat(timespec="seconds"),
        settings,
    )


class _Combination(NamedTuple):
    """A network built for one backend, precision, batch size and number of threads."""

    model: BenchmarkModel
    cost: Cost
    runner: Runner
    difference: float


def _build_all(
    settings: BenchmarkSettings, on_row: Callable[[str], None]
) -> tuple[dict[_Key, _Combination], list[str]]:
    """Build every combination that can run; the second value explains the others, one sentence each."""
    combinations: dict[_Key, _Combination] = {}
    left_out: list[str] = []
    for network in settings.networks:
        torch.manual_seed(0)
        model = create_benchmark_model(network, image_size=settings.image_size)
        shape = (3, model.image_size, model.image_size)
        cost = count(model.model, shape)
        for batch in settings.batches:
            x = torch.randn(batch, *shape)
            calibration = [torch.randn(batch, *shape).numpy() for _ in range(CALIBRATION_BATCHES)]
            with torch.inference_mode():
                expected = model.model(x).numpy()
            for backend, precision, threads in _combinations(settings, left_out):
                on_row(f"{network}, {backend} {precision}, batch {batch}, {threads} threads")
                try:
                    prepared = prepare(
                        backend, model.model, x, precision=precision, threads=threads, calibration=calibration
                    )
                except EngineError as error:
                    left_out.append(f"{network} in {backend}: {error}")
                    continue
                difference = float(np.abs(prepared.output - expected).max() / np.abs(expected).max())
                key = network, backend, precision, batch, threads
                combinations[key] = _Combination(model, cost, prepared.runner, difference)
    return combinations, left_out


def _combinations(settings: BenchmarkSettings, left_out: list[str]) -> Iterable[tuple[str, str, int]]:
    for backend in settings.backends:
        for precision in settings.precisions:
            if precision not in BACKENDS[backend].precisions:
                left_out.append(f"{backend} does not support {precision} on CPUs.")
                continue
            for threads in settings.threads:
                yield backend, precision, threads


def _select_baseline(settings: BenchmarkSettings, backend: str | None) -> tuple[str, str, str]:
    chosen = backend or settings.backends[0]
    precision = next(p for p in settings.precisions if p in BACKENDS[chosen].precisions)
    return settings.networks[0], chosen, precision


def _check_baseline(
    settings: BenchmarkSettings, reference: tuple[str, str, str], runnable: Collection[_Key], left_out: Iterable[str]
) -> None:
    """Raise ConfigurationError, with the reason, unless the baseline runs at every batch size and number of threads."""
    network, backend, _ = reference
    if all((*reference, batch, threads) in runnable for batch in settings.batches for threads in settings.threads):
        return
    reason = next(sentence for sentence in left_out if sentence.startswith(f"{network} in {backend}: "))
    raise ConfigurationError(f"the baseline {' '.join(reference)} cannot run: {reason}")


def _name(key: Sequence[object]) -> str:
    return "|".join(map(str, key))


def _validate(settings: BenchmarkSettings, baseline: str | None) -> None:
    for backend in settings.backends:
        if backend not in BACKENDS:
            raise UnknownNameError("backend", backend, BACKENDS)
    for precision in settings.precisions:
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
    numbers = {"batch": settings.batches, "threads": settings.threads, "runs": (settings.runs, settings.rounds)}
    if settings.image_size is not None:
        numbers["image_size"] = (settings.image_size,)
    for name, values in numbers.items():
        if not values or min(values) < 1:
            raise ConfigurationError(f"{name} is {', '.join(map(str, values))}; every number must be at least 1.")
    if not settings.networks or not settings.backends:
        raise ConfigurationError("name a network and a backend to compare.")
    chosen = baseline or settings.backends[0]
    if chosen not in settings.backends:
        raise ConfigurationError(f"the baseline is {chosen}; it must be one of {', '.join(settings.backends)}.")
    if not set(settings.precisions) & set(BACKENDS[chosen].precisions):
        raise ConfigurationError(
            f"the baseline {chosen} has none of the precisions {', '.join(settings.precisions)};"
            f" it has {', '.join(BACKENDS[chosen].precisions)}."
        )
