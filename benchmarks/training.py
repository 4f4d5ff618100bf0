"""Is training on a CPU as fast as timm's, with the same gradients and less memory?

Steps (forwards, backwards, SGD) of our ghostnet_100 and of timm's, which has the same parameters, on the same batch;
in turn in one process, in blocks. timm runs in each way that could be its best: eager, under bf16 autocast, compiled.
First, without timing, gradients are compared: ours and timm's with timm's in float64, medians of five batches. Peak
memory is that of a process of its own for each, three steps long, without what it had before the first.

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
    parser.add_argument("--model", default="ghostnet_100", help="in timm too")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 32])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 128], help="one for each size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["eager", "bf16", "compile"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=30, help="steps of each")
    parser.add_argument("--memory", help=argparse.SUPPRESS)  # one way, in this process
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
    ways = [OURS, *options.peers]
    print(f"\n{size} pixels, batch {batch}")
    print("difference of all gradients from timm's in float64: " + gradients(options.model, size, batch))
    runners = {way: Runner(step(way, options.model, size, batch)) for way in ways}
    timings = time_interleaved(runners, runs=options.runs, rounds=options.rounds)
    print("\n| | ms | quartiles | images/s | fused is faster by | peak memory (MB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way in ways:
        timing = timings[way]
        low, middle, high = speedup(timing, timings[OURS])
        arguments = ["--memory", way, "--model", options.model, "--threads", str(options.threads)]
        command = [sys.executable, __file__, *arguments, "--sizes", str(size), "--batches", str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(
            f"| {PEERS.get(way, 'ours, fused')} | {1e3 * timing.median:.1f} |"
            f" {1e3 * timing.low:.1f} to {1e3 * timing.high:.1f} | {batch / timing.median:.1f} |"
            f" {middle:.2f} ({low:.2f} to {high:.2f}) | {json.loads(done.stdout.splitlines()[-1]):.0f} |",
            flush=True,
        )


def network(way: str, name: str) -> nn.Module:
    """Timm's network, or ours with timm's weights; without dropout."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, drop_rate=0.0)
    if way in (OURS, "plain"):
        ours = create_model(name, drop_rate=0.0)
        ours.load_state_dict(rename_v3(theirs.state_dict()))
        theirs = ours
    return theirs.to(memory_format=torch.channels_last).train()


def images(size: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(0, 1000, (batch,), generator=generator)


def context(way: str) -> AbstractContextManager[object]:
    if way == OURS:
        return fused_training()
    return torch.autocast("cpu", torch.bfloat16) if way == "bf16" else nullcontext()


def step(way: str, name: str, size: int, batch: int) -> Callable[[], None]:
    """One step of training, to be called again and again."""
    model, (x, labels) = network(way, name), images(size, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(model) if way == "compile" else model

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with context(way):
            loss = F.cross_entropy(forward(x).float(), labels)
        loss.backward()
        optimizer.step()

    return run


def gradients(name: str, size: int, batch: int) -> str:
    """How far the gradients of one step are from those of timm in float64: |difference| / |gradient|, over all.

    Medians of some batches: in float32 a single ReLU that opens instead of closing decides, for timm as for us.
    """

    def of(model: nn.Module, way: str, dtype: torch.dtype, seed: int) -> Tensor:
        model = copy.deepcopy(model).to(dtype)
        x, labels = images(size, batch, seed)
        with context(way):
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


def peak_memory(way: str, name: str, size: int, batch: int) -> float:
    """MB that three steps need beyond what the process had before."""
    run = step(way, name, size, batch)
    before = resident("VmRSS")
    for _ in range(3):
        run()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """MB of memory of this process, now (VmRSS) or at its highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
