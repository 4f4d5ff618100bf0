"""One and several threads of the engine, in turn, on a quiet machine and beside endless loops of other processes.

python benchmarks/engine_busy.py
python benchmarks/engine_busy.py --models ghostnet_100,ghostnetv2_100 --loops 1 --threads 2
"""

import argparse
import subprocess
import sys

import numpy as np

from ghostnets import engine
from ghostnets.cores import usable_cores
from ghostnets.measure import Runner, processor_name, speedup, time_interleaved
from ghostnets.models import create_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ghostnet_100,ghostnet_050,ghostnetv2_100")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--loops", type=int, default=1, help="number of endless loops")
    parser.add_argument("--runs", type=int, default=400)
    options = parser.parse_args()
    print(f"{processor_name()}; {options.precision}, batch 1, 224 x 224, {options.runs} runs each, medians")
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    for name in options.models.split(","):
        one = engine.compile(create_model(name).eval(), threads=1, precision=options.precision)
        many = one.copy(threads=options.threads)
        for count in (0, options.loops):
            loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            try:
                compare(name, one, many, x, loops=count, runs=options.runs)
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()


def compare(name: str, one: engine.Session, many: engine.Session, x: np.ndarray, *, loops: int, runs: int) -> None:
    """Print the median time with one thread and with several, and their ratio by blocks of runs."""
    timings = time_interleaved({"one": Runner(lambda: one(x)), "many": Runner(lambda: many(x))}, runs=runs)
    low, median, high = speedup(timings["many"], timings["one"])  # time of many / time of one
    print(
        f"{name}, {one.isa}, beside {loops} loops: 1 thread {timings['one'].median * 1e3:.3f} ms, {many.threads}"
        f" threads {timings['many'].median * 1e3:.3f} ms; {many.threads} threads take {median:.2f} times as long"
        f" ({low:.2f} to {high:.2f} by blocks)"
    )


if __name__ == "__main__":
    main()
