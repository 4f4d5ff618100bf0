"""Speed, gradients and memory of training on a CPU, against timm.

Steps (forward, backward, SGD) of our ghostnet_100 and of timm's, which has the same parameters, on the same batch,
alternating in blocks in one process. timm runs in every configuration that could be its fastest: eager, bf16 autocast,
compiled. Before the timing, gradients of both are compared with timm's in float64, medians of five batches. Peak memory
is measured in a separate process for each, over three steps, less the memory before the first.

    python benchmarks/training.py                       224 pixels, batch 16, and 32 pixels, batch 128; 2 threads
    python benchmarks/training.py --sizes 224 --batches 16 --peers eager
    python benchmarks/training.py --model ghostnet_050 --peers plain    our own separate layers
    python benchmarks/training.py --model ghostnetv3_100 --peers eager compile

Needs: pip install 'ghostnets[bench]'
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.checkpoints.sources import rename_v3
from ghostnets.measure import Runner, processor_name, speedup, time_interleaved
from ghostnets.models import create_model
from ghostnets.train.fused import fused_training

OURS = "fused"
BATCHES_COMPARED = 5
PEERS = {
    "eager": "timm, eager",
    "bf16": "timm, bf16 autocast",
    "compile": "timm, torch.compile",
    "plain": "ours, separate layers",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ghostnet_100", help="network of both, also in timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 32])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 128], help="one per size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["eager", "bf16", "compile"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=30, help="steps of each configuration")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # one configuration, in this process
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(peak_memory(options.memory, options.model, options.sizes[0], options.batches[0])))
        return
    names = ("torch", "timm")
    print(f"{processor_name()}, {options.threads} threads; {', '.join(f'{name} {version(name)}' for name in names)}")
    print(f"{options.model}, channels_last, SGD; medians of {options.runs} steps in {options.rounds} blocks, quartiles")
    for size, batch in zip(options.sizes, options.batches, strict=True):
        report(options, size, batch)


def report(options: argparse.Namespace, size: int, batch: int) -> None:
    configurations = [OURS, *options.peers]
    print(f"\n{size} pixels, batch {batch}")
    print("difference of all gradients from timm's in float64: " + gradients(options.model, size, batch))
    runners = {
        configuration: Runner(step(configuration, options.model, size, batch)) for configuration in configurations
    }
    timings = time_interleaved(runners, runs=options.runs, rounds=options.rounds)
    print("\n| | ms | quartiles | images/s | fused is faster by | peak memory (MB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for configuration in configurations:
        timing = timings[configuration]
        low, middle, high = speedup(timing, timings[OURS])
        arguments = ["--memory", configuration, "--model", options.model, "--threads", str(options.threads)]
        command = [sys.executable, __file__, *arguments, "--sizes", str(size), "--batches", str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(
            f"| {PEERS.get(configuration, 'ours, fused')} | {1e3 * timing.median:.1f} |"
            f" {1e3 * timing.low:.1f} to {1e3 * timing.high:.1f} | {batch / timing.median:.1f} |"
            f" {middle:.2f} ({low:.2f} to {high:.2f}) | {json.loads(done.stdout.splitlines()[-1]):.0f} |",
            flush=True,
        )


def network(configuration: str, name: str) -> nn.Module:
    """The network of timm, or ours with its weights; without dropout."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, drop_rate=0.0)
    if configuration in (OURS, "plain"):
        ours = create_model(name, drop_rate=0.0)
        ours.load_state_dict(rename_v3(theirs.state_dict()))
        theirs = ours
    return theirs.to(memory_format=torch.channels_last).train()


def images(size: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(0, 1000, (batch,), generator=generator)


def context(configuration: str) -> AbstractContextManager[object]:
    if configuration == OURS:
        return fused_training()
    return torch.autocast("cpu", torch.bfloat16) if configuration == "bf16" else nullcontext()


def step(configuration: str, name: str, size: int, batch: int) -> Callable[[], None]:
    """Build a training step that can be called repeatedly."""
    model, (x, labels) = network(configuration, name), images(size, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(model) if configuration == "compile" else model

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with context(configuration):
            loss = F.cross_entropy(forward(x).float(), labels)
        loss.backward()
        optimizer.step()

    return run


def gradients(name: str, size: int, batch: int) -> str:
    """Relative error of the gradients of one step, |difference| / |gradient|, against timm's in float64.

    Medians over batches: in float32 a single ReLU of opposite sign dominates the error, in timm's as in ours.
    """

    def of(model: nn.Module, configuration: str, dtype: torch.dtype, seed: int) -> Tensor:
        model = copy.deepcopy(model).to(dtype)
        x, labels = images(size, batch, seed)
        with context(configuration):
            logits = model(x.to(dtype))
        F.cross_entropy(logits, labels).backward()
        parameters = rename_v3(dict(model.named_parameters()))
        return torch.cat([p.grad.double().flatten() for _, p in sorted(parameters.items()) if p.grad is not None])

    ours, theirs = network(OURS, name), network("eager", name)
    found: list[list[float]] = []
    for seed in range(BATCHES_COMPARED):
        truth = of(theirs, "eager", torch.float64, seed)
        computed = (
            of(ours, OURS, torch.float64, seed),
            of(ours, OURS, torch.float32, seed),
            of(theirs, "eager", torch.float32, seed),
        )
        found.append([((gradient - truth).norm() / truth.norm()).item() for gradient in computed])
    values = [statistics.median(column) for column in zip(*found, strict=True)]
    return f"fused in float64 {values[0]:.1e}, in float32 {values[1]:.1e}; timm in float32 {values[2]:.1e}"


def peak_memory(configuration: str, name: str, size: int, batch: int) -> float:
    """Memory in MB that three steps need beyond that before the first."""
    run = step(configuration, name, size, batch)
    before = resident("VmRSS")
    for _ in range(3):
        run()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Resident memory of this process in MB, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
