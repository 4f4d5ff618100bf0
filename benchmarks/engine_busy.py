"""One and several threads of the engine, and several of OpenVINO, in turn, on a quiet machine and beside endless loops.

    python benchmarks/engine_busy.py
    python benchmarks/engine_busy.py --models ghostnet_100,ghostnetv2_100 --loops 1 --threads 2

The loops are other processes. Needs: pip install 'ghostnets[bench]'
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Mapping
from functools import partial

import numpy as np
from engine import build, openvino_runner

from ghostnets import engine
from ghostnets.cores import usable_cores
from ghostnets.measure import Runner, Timing, processor_name, speedup, time_interleaved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ghostnet_100,ghostnet_050,ghostnetv2_100")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--loops", type=int, default=1, help="number of endless loops")
    parser.add_argument("--runs", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{processor_name()}; {options.precision}, batch 1, 224 x 224, {options.runs} runs each, medians")
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    for name in options.models.split(","):
        network = build(name)
        one = engine.compile(network, threads=1, precision=options.precision)
        many = one.copy(threads=options.threads)
        _, openvino = openvino_runner(network, x, options.threads, precision=options.precision)
        runners = {"one": partial(one, x), "many": partial(many, x), "openvino": openvino}
        for count in (0, options.loops):
            loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            try:
                timings = time_interleaved({key: Runner(run) for key, run in runners.items()}, runs=options.runs)
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()
            report(f"{name}, {one.isa},", count, many.threads, timings)


def report(name: str, loops: int, threads: int, timings: Mapping[str, Timing]) -> None:
    """Print the medians, and the ratios by blocks of runs to the engine's several threads."""
    one, many, openvino = (timings[key].median * 1e3 for key in ("one", "many", "openvino"))
    low, median, high = speedup(timings["many"], timings["one"])  # time of many / time of one
    print(
        f"{name} beside {loops} loops: 1 thread {one:.3f} ms, {threads} threads {many:.3f} ms; {threads} threads take"
        f" {median:.2f} times as long ({low:.2f} to {high:.2f} by blocks)"
    )
    low, median, high = speedup(timings["openvino"], timings["many"])
    print(f"  OpenVINO, {threads} threads: {openvino:.3f} ms, {median:.2f} times as long ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
