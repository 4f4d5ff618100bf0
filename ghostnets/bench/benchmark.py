"""Networks and backends side by side, in one run."""

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from ghostnets.bench.backends import BACKENDS, PRECISIONS, prepare
from ghostnets.bench.models import BenchmarkModel, create_benchmark_model
from ghostnets.errors import ConfigurationError, EngineError, UnknownNameError
from ghostnets.measure import Cost, Runner, Timing, count, processor_name, speedup, time_interleaved

__all__ = ["BenchmarkResult", "BenchmarkRow", "BenchmarkSettings", "run_benchmark"]

CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is compared. Every combination is one row, as far as the backend has the precision.

    Attributes:
        networks: Names, ours or ``"timm:NAME"``, ``"torchvision:NAME"``.
        backends: Keys of ``BACKENDS``.
        batches: Images a run.
        threads: That share one run.
        precisions: ``"f32"``, ``"bf16"``, ``"int8"``.
        image_size: Side of the input in pixels; each network's own by default.
        runs: Timed runs of each row at the least.
        rounds: Blocks they are spread over, in turns.
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
    """One combination.

    Attributes:
        network, backend, precision, batch, threads: What ran.
        image_size: Side of the input in pixels.
        params, macs: Of the network, for one image.
        top1: Published ImageNet accuracy in per cent, or None; not measured here.
        accuracy_source: Who publishes it.
        seconds: Of a run, with quartiles.
        times_as_fast: As the baseline's row of the same batch and threads, by rounds: quartiles around the median.
        difference: Largest difference from the output of eager PyTorch in float32, over the largest output.
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
    """The result of ``compare``.

    Attributes:
        rows: In the order of the settings.
        left_out: One sentence for each combination that a backend cannot run.
        baseline: Network, backend and precision of the rows that ratios refer to.
        processor, platform, versions, date: What it ran on.
        settings: What was asked for.
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
    """Builds every combination, then times all of them in turns.

    Weights are random and the input is noise: neither changes the time of these networks. int8 takes its ranges from
    noise too, so its difference says nothing of the accuracy of a quantised network on images.

    Args:
        settings: What to compare.
        baseline: Backend that ratios refer to, with the first network, in the first of the precisions that it has; the
            first backend by default.
        on_row: Called with the name of each combination that is being built.
        on_block: Called after each block of runs.

    Raises:
        UnknownNameError, ConfigurationError: A name or number that does not exist.
        MissingExtraError: A backend is not installed; the message tells the pip command.
    """
    _check(settings, baseline)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {BACKENDS[name].libraries[0]: BACKENDS[name].version for name in settings.backends}
    left_out: list[str] = []
    known: dict[tuple[str, str, str, int, int], tuple[BenchmarkModel, Runner, float]] = {}
    costs: dict[str, Cost] = {}
    threads_before = torch.get_num_threads()
    for network in settings.networks:
        torch.manual_seed(0)
        entrant = create_benchmark_model(network, image_size=settings.image_size)
        shape = (3, entrant.image_size, entrant.image_size)
        costs[network] = count(entrant.model, shape)
        for batch in settings.batches:
            x = torch.randn(batch, *shape)
            calibration = [torch.randn(batch, *shape).numpy() for _ in range(CALIBRATION_BATCHES)]
            with torch.inference_mode():
                expected = entrant.model(x).numpy()
            for backend, precision, threads in _combinations(settings, left_out):
                on_row(f"{network}, {backend} {precision}, batch {batch}, {threads} threads")
                try:
                    prepared = prepare(
                        backend, entrant.model, x, precision=precision, threads=threads, calibration=calibration
                    )
                except EngineError as error:
                    left_out.append(f"{network} in {backend}: {error}")
                    continue
                difference = float(np.abs(prepared.output - expected).max() / np.abs(expected).max())
                known[network, backend, precision, batch, threads] = (entrant, prepared.runner, difference)
    reference = _baseline(settings, baseline)
    if known and not any(key[:3] == reference for key in known):
        raise ConfigurationError(f"the baseline {' '.join(reference)} cannot run: {left_out[-1]}")
    try:
        timings = time_interleaved(
            {_name(key): runner for key, (_, runner, _) in known.items()},
            runs=settings.runs,
            rounds=settings.rounds,
            on_block=on_block,
        )
    finally:
        torch.set_num_threads(threads_before)

    rows = []
    for key, (entrant, _, difference) in known.items():
        network, backend, precision, batch, threads = key
        cost, timing = costs[network], timings[_name(key)]
        rows.append(
            BenchmarkRow(
                *(network, backend, precision, batch, threads, entrant.image_size, cost.params, cost.macs),
                *(entrant.top1, entrant.accuracy_source, timing),
                speedup(timings[_name((*reference, batch, threads))], timing),
                difference,
            )
        )
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


def _combinations(settings: BenchmarkSettings, left_out: list[str]) -> Iterable[tuple[str, str, int]]:
    for backend in settings.backends:
        for precision in settings.precisions:
            if precision not in BACKENDS[backend].precisions:
                left_out.append(f"{backend} does not compute in {precision} on a processor.")
                continue
            for threads in settings.threads:
                yield backend, precision, threads


def _baseline(settings: BenchmarkSettings, backend: str | None) -> tuple[str, str, str]:
    chosen = backend or settings.backends[0]
    precision = next(p for p in settings.precisions if p in BACKENDS[chosen].precisions)
    return settings.networks[0], chosen, precision


def _name(key: Sequence[object]) -> str:
    return "|".join(map(str, key))


def _check(settings: BenchmarkSettings, baseline: str | None) -> None:
    for backend in settings.backends:
        if backend not in BACKENDS:
            raise UnknownNameError("backend", backend, BACKENDS)
    for precision in settings.precisions:
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
    numbers = {"batch": settings.batches, "threads": settings.threads, "runs": (settings.runs, settings.rounds)}
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
