"""Run the engine for minutes: random networks, sizes and batches, concurrent sessions and sessions shared by threads.

Every output is compared: of a new session with torch in float64, of the shared ones with their first output, by bits.
Memory must not grow: the medians of the second and of the last quarter of the time are compared, since memory for
float64 references and networks of many sizes varies.

    python scripts/soak_engine.py                10 minutes, 3 callers
    python scripts/soak_engine.py --seconds 60
"""

import argparse
import copy
import resource
import statistics
import sys
import threading
import time
import traceback

import numpy as np
import torch
from check_engine import MAX_ERROR, randomized
from torch import nn

from ghostnets import engine
from ghostnets.models import create_model

GROWTH = 64 << 20  # bytes by which memory may differ between the second and the last quarter
NETWORKS = [
    ("ghostnet_050", {}),
    ("ghostnet_100", {"width": 0.35, "ratio": 3}),
    ("ghostnetv2_050", {"width": 0.4}),
    ("ghostnetv3_050", {}),
    ("g_ghost_regnetx_002", {}),
    ("ghost_resnet20", {}),
    ("ghost_vgg16", {}),
    ("ghostnet_100_d_li14", {}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--callers", type=int, default=3, help="threads of Python that compile and call")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = [randomized(create_model(name, num_classes=11, **arguments)) for name, arguments in NETWORKS]
    shared = Shared(models[0])
    start = time.monotonic()
    counts, errors, stops = [0] * options.callers, [], threading.Event()

    def call(number: int) -> None:
        generator = np.random.default_rng(number)
        try:
            while not stops.is_set():
                one_session(models[generator.integers(len(models))], generator)
                shared.check(generator)
                counts[number] += 1
        except BaseException:
            errors.append(traceback.format_exc())
            stops.set()

    callers = [threading.Thread(target=call, args=(number,)) for number in range(options.callers)]
    for caller in callers:
        caller.start()
    sizes = []
    while (elapsed := time.monotonic() - start) < options.seconds and not stops.wait(min(1.0, options.seconds / 20)):
        sizes.append(resident_bytes())
    stops.set()
    for caller in callers:
        caller.join()
    if errors:
        sys.exit(errors[0])
    quarter = len(sizes) // 4
    second, last = (statistics.median(part) for part in (sizes[quarter : 2 * quarter], sizes[-quarter:]))
    print(
        f"{sum(counts)} sessions of {len(models)} networks by {options.callers} callers in {elapsed:.0f} s, all correct"
    )
    print(
        f"resident memory, medians: second quarter {second / 2**20:.0f} MB, last quarter {last / 2**20:.0f} MB;"
        f" peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB"
    )
    sys.exit(last - second > GROWTH)


class Shared:
    """Two sessions that all callers use, and their outputs."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs = [torch.randn(1, 3, 96, 90), torch.randn(5, 3, 33, 47)]
        self.sessions = [engine.compile(model, threads=threads) for threads in (1, 2)]
        self.outputs = [[session(x) for x in self.inputs] for session in self.sessions]

    def check(self, generator: np.random.Generator) -> None:
        i, j = generator.integers(2, size=2)
        if not torch.equal(self.sessions[i](self.inputs[j]), self.outputs[i][j]):
            raise AssertionError("two outputs of one session differ")


def one_session(model: nn.Module, generator: np.random.Generator) -> None:
    """Compare a new session with torch at some sizes and batches."""
    session = engine.compile(model, threads=int(generator.integers(1, 4)))
    for _ in range(3):
        height, width = generator.integers(1, 120, size=2)
        x = torch.from_numpy(generator.standard_normal((generator.integers(1, 6), 3, height, width), dtype=np.float32))
        with torch.no_grad():
            expected = copy.deepcopy(model).double()(x.double())
        error = ((session(x).double() - expected).abs().max() / expected.abs().max()).item()
        if not error < MAX_ERROR:
            raise AssertionError(
                f"{type(model).__name__}, {tuple(x.shape)}, {session.threads} threads: error {error:.1e}"
            )


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
