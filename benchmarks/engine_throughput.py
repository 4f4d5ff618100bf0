"""Throughput of one single-threaded session against one session per core.

Each session is called by a separate Python thread; calls release the interpreter lock. Blocks of one and of all
sessions alternate, so that the ratio of adjacent blocks is robust to slow changes in load; the median ratio is printed.

    python benchmarks/engine_throughput.py
    python benchmarks/engine_throughput.py --model ghostnetv2_100 --batch 8 --precision bf16
"""

import argparse
import statistics
import threading
import time

import numpy as np

from ghostnets import engine
from ghostnets.cores import usable_cores
from ghostnets.measure import processor_name
from ghostnets.models import create_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ghostnet_100")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--sessions", type=int, default=usable_cores())
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a block")
    options = parser.parse_args()
    model = create_model(options.model).eval()
    x = np.random.default_rng(0).standard_normal((options.batch, 3, 224, 224), dtype=np.float32)
    first = engine.compile(model, threads=1, precision=options.precision)
    sessions = [first, *(first.copy(threads=1) for _ in range(options.sessions - 1))]
    rate(sessions, x, options.seconds)
    pairs = [
        (rate(sessions[:1], x, options.seconds), rate(sessions, x, options.seconds)) for _ in range(options.blocks)
    ]
    ratios = sorted(many / one for one, many in pairs)
    print(
        f"{processor_name()}; {options.model}, batch {options.batch}, {options.precision}, {sessions[0].isa}, 224 x 224"
    )
    print(
        f"1 session of 1 thread: {statistics.median(one for one, _ in pairs):.0f} images/s; {len(sessions)} sessions:"
        f" {statistics.median(many for _, many in pairs):.0f} images/s; ratio {statistics.median(ratios):.2f}"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} pairs of blocks of {options.seconds} s)"
    )


def rate(sessions: list[engine.Session], x: np.ndarray, seconds: float) -> float:
    """Measure the total throughput of the sessions in images per second."""
    counts = [0] * len(sessions)
    start = time.perf_counter()

    def call(number: int) -> None:
        while time.perf_counter() - start < seconds:
            sessions[number](x)
            counts[number] += len(x)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(len(sessions))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
