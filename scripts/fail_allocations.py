"""Let each allocation of the engine fail in turn, under the address and undefined-behaviour sanitizers.

For V1, V2, V3, a backbone and a network with the nodes that these do not have, in every precision that each supports:
at each of the first --count allocations of the native code during compile, load, and the first run of a new session,
the call must raise EngineError, and the same call afterwards, as a session that lives on, must give the right values to
the last bit. Planning in Python, which allocates nothing in native code, is done once.

    python scripts/fail_allocations.py
    python scripts/fail_allocations.py --networks ghostnet_050 --count 100
"""

import argparse
import ctypes
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sanitized_module import run_sanitized

from ghostnets.errors import EngineError

# Every kind of block, a few channels wide: some hundred allocations, all of which fail in turn.
STAGES = [[[3, 16, 16, 0.0, 1]], [[3, 48, 24, 0.0, 2]], [[5, 72, 40, 0.25, 2]]]
SMALL: dict[str, Any] = {"width": 0.1, "stages": STAGES}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "V1": ("ghostnet_050", {**SMALL, "num_classes": 3}),
    "V2": ("ghostnetv2_050", {**SMALL, "num_classes": 3}),
    "V3": ("ghostnetv3_050", {**SMALL, "num_classes": 3}),
    "backbone": ("ghostnetv2_100", {**SMALL, "features_only": True}),
}
OTHER = "every operation"  # key in narrow_networks
STATISTICS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
SIZE = 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="allocations of each call, at most")
    parser.add_argument("--networks", nargs="*", choices=[*NETWORKS, OTHER], default=[*NETWORKS, OTHER])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", nargs="*", default=["f32", "bf16", "int8"])
    options = parser.parse_args()
    library = ctypes.CDLL(str(run_sanitized()))
    fail_allocation = library.ghostnets_fail_allocation
    fail_allocation.argtypes = [ctypes.c_long]
    failures = 0
    for name in options.networks:
        for precision in options.precisions:
            failures += check_network(name, precision, fail_allocation, options)
    return 1 if failures else 0


def check_network(
    name: str, precision: str, fail_allocation: Callable[[int], None], options: argparse.Namespace
) -> int:
    """Check one network; print a line, and return the number of failures."""
    from ghostnets import engine

    count, threads = options.count, options.threads
    noise = np.random.default_rng(0)
    calibration = [noise.standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)] if precision == "int8" else None
    pixels = noise.integers(0, 256, (3, SIZE, SIZE + 3, 3), dtype=np.uint8)
    with planned_once(name) as model, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.engine"

        def compile_network() -> engine.Session:
            return engine.compile(model, precision=precision, calibration=calibration, threads=threads, **STATISTICS)

        try:
            kept = compile_network()
        except EngineError:
            print(f"{name}, {precision}: not supported", flush=True)
            return 0
        kept.save(path)
        expected = _values(kept(pixels))
        failures = 0

        def run_new_session(session: engine.Session) -> engine.Session:
            session(pixels)
            return session

        calls: dict[str, Callable[[engine.Session], engine.Session]] = {
            "compile": lambda _: compile_network(),
            "load": lambda _: engine.load(path, threads=threads),
            "run": run_new_session,
        }
        for call, action in calls.items():
            for allocation in range(count):
                new = kept.copy(threads=threads)
                fail_allocation(allocation)
                try:
                    session = action(new)
                    is_last = True
                except EngineError:
                    is_last = False
                finally:
                    fail_allocation(-1)
                if not is_last:
                    session = action(new) if call == "run" or allocation % 20 == 0 else kept
                if any(_values(each(pixels)) != expected for each in (session, kept)):
                    print(f"{name}, {precision}: other values after allocation {allocation} of {call}", flush=True)
                    failures += 1
                if is_last:
                    break
            tried = f"all {allocation}" if is_last else f"the first {count}"
            print(f"{name}, {precision}, {call}: {tried} allocations failed, {failures} failures", flush=True)
    return failures


@contextmanager
def planned_once(name: str) -> Iterator[Any]:
    """Yield a network, for which ``engine.compile`` takes the same plan every time."""
    from ghostnets.engine import planner
    from ghostnets.models import create_model

    if name == OTHER:
        from narrow_networks import EveryOperation

        model: Any = EveryOperation().eval()
    else:
        architecture, arguments = NETWORKS[name]
        model = create_model(architecture, **arguments).eval()
    make_plan = planner.make_plan
    plan = make_plan(model, **STATISTICS)
    planner.make_plan = lambda *_, **__: dataclasses.replace(plan, tensors=dict(plan.tensors), ranges=[])
    try:
        yield model
    finally:
        planner.make_plan = make_plan


def _values(outputs: Any) -> list[bytes]:
    return [output.tobytes() for output in (outputs if isinstance(outputs, list) else [outputs])]


if __name__ == "__main__":
    sys.exit(main())
