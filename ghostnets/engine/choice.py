"""The fastest precision and number of threads for a plan on this machine: measured once, then read from a cache."""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets import __version__
from ghostnets.engine.plan import Plan
from ghostnets.errors import StorageError
from ghostnets.files import user_cache, write_atomically
from ghostnets.processor import processor_name

__all__ = ["PrecisionChoice", "allowed_precisions", "choose"]

GAIN = 0.97  # a candidate replaces a more precise one, or one of more threads, if it takes less than this share
SECONDS, MIN_ROUNDS, MAX_ROUNDS = 0.7, 5, 60
BUSY = 1.3  # other programs disturbed a measurement whose median is this many times its minimum
MAX_CACHE_BYTES = 10_000


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision and number of threads that were fastest.

    Attributes:
        precision: ``"f32"``, ``"bf16"`` or ``"int8"``.
        threads: Number of threads.
        allowed_threads: Number of threads that it was chosen from.
        isa: Instruction set that was measured.
        image_size: Height and width of the image that was timed.
        milliseconds: ``"f32, 2 threads"`` and so on -> median time of one image; empty if only one was allowed.
        was_busy: Whether other programs disturbed the measurement, which was then not kept.
    """

    precision: str
    threads: int
    allowed_threads: int
    isa: str
    image_size: int
    milliseconds: dict[str, float]
    was_busy: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Describe the choice in a sentence."""
        if not self.milliseconds:
            return f"{_name(self.precision, self.threads)}, as no other is allowed."
        times = "; ".join(f"{name} {value:.3g} ms" for name, value in self.milliseconds.items())
        fewer = f", fewer than the {self.allowed_threads} allowed" if self.threads < self.allowed_threads else ""
        busy = ", which was busy, so that it is measured again next time" if self.was_busy else ""
        return (
            f"{_name(self.precision, self.threads)}{fewer}, the fastest on this machine{busy} ({self.isa}; one image of"
            f" {self.image_size} x {self.image_size}: {times})."
        )


def allowed_precisions(plan: Plan) -> list[str]:
    """Precisions that ``"auto"`` chooses from: none is less precise than the plan's own; int8 only if calibrated.

    A plan of layers in int8 and in float32 has no other precision.
    """
    if plan.floats:
        return [plan.precision]
    known = ["f32", "bf16", *(["int8"] if plan.ranges else [])]
    return known if plan.precision == "auto" else known[: known.index(plan.precision) + 1]


def choose(plan: Plan, native: Any, *, threads: int, isa: str | None, image_size: int) -> PrecisionChoice:
    """Return the fastest precision and number of threads, from the cache if this machine has measured them before.

    The cache is a file in the user's cache folder, named after processor, version, plan, threads, instruction set and
    image size. Without a writable cache, and while other programs keep the machine busy, it is measured each time.

    Args:
        plan: Plan of the network.
        native: The native module.
        threads: Highest number of threads.
        isa: Instruction set, as for ``Session``.
        image_size: Height and width of the image that is timed.
    """
    precisions, counts = allowed_precisions(plan), _thread_counts(threads)
    isa = isa or native.instruction_sets()[0]
    if len(precisions) * len(counts) == 1:
        return PrecisionChoice(precisions[0], threads, threads, isa, image_size, {})
    cache = _cache_file(plan, [precisions, threads, isa, image_size])
    found = _read(cache, precisions, counts)
    if found is None:
        found = _measure(plan, native, precisions, counts, isa, image_size)
        if not found.was_busy:
            _write(cache, found)
    return found


def _name(precision: str, threads: int) -> str:
    return f"{precision}, {threads} thread{'s' if threads > 1 else ''}"


def _thread_counts(threads: int) -> list[int]:
    """Return the allowed number of threads and its successive halves, down to 1."""
    counts = [threads]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def _cache_file(plan: Plan, circumstances: list[Any]) -> Path:
    """File of the choice; times do not depend on the values of weights, so only their shapes count."""
    shapes = {name: tensor.shape for name, tensor in plan.tensors.items()}
    key = json.dumps([processor_name(), __version__, plan.native(""), shapes, circumstances])
    return user_cache() / "engine" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(cache: Path, precisions: list[str], counts: list[int]) -> PrecisionChoice | None:
    """Read the choice from a cache file; None if it is missing or unusable."""
    try:
        if cache.stat().st_size > MAX_CACHE_BYTES:
            return None
        found = PrecisionChoice(**json.loads(cache.read_text(encoding="utf-8")))
        str(found)  # raises for values that are not numbers
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return found if found.precision in precisions and found.threads in counts else None


def _write(cache: Path, choice: PrecisionChoice) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(cache) as temporary:
            temporary.write_text(json.dumps(choice.to_dict()), encoding="utf-8")
    except (OSError, StorageError):  # measured again next time
        return


def _measure(
    plan: Plan, native: Any, precisions: list[str], counts: list[int], isa: str, image_size: int
) -> PrecisionChoice:
    """Time all combinations in turn, so that disturbances meet all of them."""
    sessions: dict[tuple[str, int], Any] = {}
    for precision in precisions:
        first = native.Session(plan.native(precision), plan.tensors, counts[0], isa)
        sessions |= {(precision, n): first if n == counts[0] else first.share_weights(n) for n in counts}
    image = _image(plan, image_size)
    outputs = plan.empty_outputs(sessions[precisions[0], counts[0]], 1, image_size, image_size)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in sessions}
    for session in sessions.values():
        session.run(image, outputs)  # makes the schedule
    end = time.perf_counter() + SECONDS
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for key, session in sessions.items():
            session.run(image, outputs)  # its weights come back to the caches, and its threads wake
            start = time.perf_counter()
            session.run(image, outputs)
            times[key].append(time.perf_counter() - start)
    medians = {key: statistics.median(values) for key, values in times.items()}
    precision, threads = _fastest(medians)
    milliseconds = {_name(*key): round(1e3 * value, 4) for key, value in medians.items()}
    was_busy = any(medians[key] > BUSY * min(values) for key, values in times.items())
    return PrecisionChoice(precision, threads, counts[0], isa, image_size, milliseconds, was_busy)


def _fastest(medians: Mapping[tuple[str, int], float]) -> tuple[str, int]:
    """Return the fastest key; an earlier one, more precise or of more threads, unless a later one is clearly faster."""
    best = next(iter(medians))
    for key, value in medians.items():
        if value < GAIN * medians[best]:
            best = key
    return best


def _image(plan: Plan, size: int) -> npt.NDArray[Any]:
    """Return a random image in the input format of the network."""
    generator = np.random.default_rng(0)
    if plan.mean:
        return generator.integers(0, 256, (1, size, size, plan.in_channels), np.uint8)
    return generator.standard_normal((1, plan.in_channels, size, size), np.float32)
