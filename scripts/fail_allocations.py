"""Lets each allocation of the engine fail in turn, under the address and undefined-behaviour sanitizers.

For V1, V2, V3 and a backbone, in every precision that each supports: at each of the first --count allocations of the
native code during compile, load, and the first run of a new session, the call must raise EngineError, and the same call
afterwards, as a session that lives on, must give the right values to the last bit.

    python scripts/fail_allocations.py
    python scripts/fail_allocations.py --networks ghostnet_050 --count 100
"""

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sanitized_module import run_sanitized

from ghostnets.errors import EngineError

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "V1": ("ghostnet_050", {"width": 0.1, "num_classes": 3}),
    "V2": ("ghostnetv2_050", {"width": 0.1, "num_classes": 3}),
    "V3": ("ghostnetv3_050", {"width": 0.1, "num_classes": 3}),
    "backbone": ("ghostnetv2_100", {"width": 0.1, "features_only": True}),
}
STATISTICS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
SIZE, THREADS = 40, 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="allocations of each call, at most")
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="*", default=["f32", "bf16", "int8"])
    options = parser.parse_args()
    library = ctypes.CDLL(str(run_sanitized()))
    fail_allocation = library.ghostnets_fail_allocation
    fail_allocation.argtypes = [ctypes.c_long]
    failures = 0
    for name in options.networks:
        for precision in options.precisions:
            failures += check_network(name, precision, fail_allocation, options.count)
    return 1 if failures else 0


def check_network(name: str, precision: str, fail_allocation: Callable[[int], None], count: int) -> int:
    """Check one network; print a line, and return the number of failures."""
    from ghostnets import engine
    from ghostnets.models import create_model

    architecture, arguments = NETWORKS[name]
    model = create_model(architecture, **arguments).eval()
    noise = np.random.default_rng(0)
    images = noise.standard_normal((2, 3, SIZE, SIZE), dtype=np.float32)
    pixels = noise.integers(0, 256, (3, SIZE, SIZE + 7, 3), dtype=np.uint8)

    def compile_network() -> engine.Session:
        calibration = [images] if precision == "int8" else None
        return engine.compile(model, precision=precision, calibration=calibration, threads=THREADS, **STATISTICS)

    try:
        kept = compile_network()
    except EngineError:
        print(f"{name}, {precision}: not supported", flush=True)
        return 0
    expected = _values(kept(pixels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.engine"
        kept.save(path)
        fresh: list[engine.Session] = []

        def run_again() -> engine.Session:
            fresh[0](pixels)
            return fresh[0]

        calls: dict[str, Callable[[], engine.Session]] = {
            "compile": compile_network,
            "load": lambda: engine.load(path, threads=THREADS),
            "run": run_again,
        }
        failures, line = 0, []
        for call, action in calls.items():
            tried = 0
            while tried < count:
                fresh[:] = [kept.copy(threads=THREADS)]
                fail_allocation(tried)
                session = None
                try:
                    session = action()
                except EngineError:
                    pass
                finally:
                    fail_allocation(-1)
                is_last = session is not None
                for checked in (session or action(), kept):
                    if _values(checked(pixels)) != expected:
                        print(f"{name}, {precision}: other values after allocation {tried} of {call}", flush=True)
                        failures += 1
                if is_last:
                    break
                tried += 1
            line.append(f"{call} {tried}")
        print(f"{name}, {precision}: failed allocations of {', '.join(line)}: {failures} failures", flush=True)
    return failures


def _values(outputs: Any) -> list[bytes]:
    return [output.tobytes() for output in (outputs if isinstance(outputs, list) else [outputs])]


if __name__ == "__main__":
    sys.exit(main())
