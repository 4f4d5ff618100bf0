"""The project's own measured results: trains every network of docs/results.md under one recipe, and prints the tables.

    python benchmarks/results.py train cifar10 results/          what is missing, two runs of one thread at a time
    python benchmarks/results.py train cifar10 results/ --only plain ghost-s2-d3
    python benchmarks/results.py table results/

cifar10 is a folder with train/CLASS/ and test/CLASS/. Stop it with Ctrl-C or kill (it stops its runs, which save their
state); the same command goes on. A finished run leaves results/NAME.json, its folder stays in results/runs/NAME.

Needs: pip install 'ghostnets[train,bench]'
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np

from ghostnets import engine
from ghostnets.checkpoints import read_checkpoint
from ghostnets.compress import reparameterize
from ghostnets.measure import count, processor_name

RECIPE = ("--recipe", "cifar10-fast")


def ghost(ratio: int, kernel: int) -> list[str]:
    return ["--model", "ghost_resnet20", "--ratio", str(ratio), "--cheap-kernel-size", str(kernel)]


def seeds(name: str, options: list[str]) -> dict[str, list[str]]:
    """The row three times: those that a claim rests on."""
    return {f"{name}{f'-seed{seed}' if seed else ''}": [*options, "--seed", str(seed)] for seed in range(3)}


TEACHER = "plain"  # the best plain network: the one that the others are compared with
ABLATION: dict[str, list[str]] = {
    **seeds(TEACHER, ["--model", "resnet20"]),
    **seeds("ghost-s2-d3", ghost(2, 3)),
    "ghost-s3-d3": ghost(3, 3),
    "ghost-s4-d3": ghost(4, 3),
    "ghost-s5-d3": ghost(5, 3),
    "ghost-s2-d1": ghost(2, 1),
    "ghost-s2-d5": ghost(2, 5),
    "ghost-s2-d7": ghost(2, 7),
}
FAMILY: dict[str, list[str]] = {
    f"{model}{suffix}": ["--model", model, *options]
    for model in (
        *("ghostnet_050", "ghostnetv2_050", "ghostnetv3_050"),
        *("ghostnet_100", "ghostnetv2_100", "ghostnetv3_100"),
    )
    for suffix, options in (("", []), ("-distilled", ["--teacher", TEACHER, "--temperature", "4"]))
}
ROWS = ABLATION | FAMILY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("data", type=Path)
    train.add_argument("out", type=Path)
    train.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    train.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    table = commands.add_parser("table")
    table.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "train":
        options.out.mkdir(parents=True, exist_ok=True)
        sys.exit(Runs(options.data.resolve(), options.out.resolve()).train(options.only or list(ROWS), options.jobs))
    print_tables(options.out)


class Runs:
    """Trainings side by side, each a process of its own; a signal stops them all, and nothing is lost."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.waiting: SimpleQueue[str] = SimpleQueue()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.failed: list[str] = []
        self.is_stopping = False

    def train(self, names: Sequence[str], jobs: int) -> int:
        for name in names:
            if not (self.out / f"{name}.json").exists():
                self.waiting.put(name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        workers = [threading.Thread(target=self.work) for _ in range(jobs)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.5)  # not join: it would keep signals waiting
        if self.failed:
            print(f"failed: {', '.join(self.failed)}; see their .log", file=sys.stderr)
        return int(bool(self.failed)) or (130 if self.is_stopping else 0)

    def stop(self) -> None:
        self.is_stopping = True
        for process in list(self.running.values()):
            process.terminate()

    def work(self) -> None:
        while not self.is_stopping:
            try:
                name = self.waiting.get_nowait()
            except Empty:
                return
            self.run(name)

    def run(self, name: str) -> None:
        folder = self.out / "runs" / name
        if (folder / "config.json").exists():
            arguments = ["--resume", str(folder)]
        else:
            options = ROWS[name]
            if "--teacher" in options:
                teacher = self.out / "runs" / TEACHER / "best.safetensors"
                if not (self.out / f"{TEACHER}.json").exists():
                    self.failed.append(f"{name} (its teacher, {TEACHER}, is not trained yet)")
                    return
                options = [str(teacher) if option == TEACHER else option for option in options]
            arguments = [str(self.data), "--name", name, *RECIPE, *options]
        log = self.out / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "ghostnets", "train", *arguments, "--json"],
                cwd=self.out,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            self.running[name] = process
            result, _ = process.communicate()
        del self.running[name]
        if process.returncode == 0:
            beside = self.out / f"{name}.part"
            beside.write_bytes(result)
            beside.replace(self.out / f"{name}.json")
            print(f"{name}: {json.loads(result)['evaluation']['top1']}", flush=True)
        elif not self.is_stopping:
            self.failed.append(name)


def print_tables(out: Path) -> None:
    print(f"{processor_name()}; latency: engine, f32, one thread, batch 1, median of 5 blocks in turn\n")
    for title, rows in (("ratio and cheap kernel", ABLATION), ("family", FAMILY)):
        found = {
            name: json.loads((out / f"{name}.json").read_text()) for name in rows if (out / f"{name}.json").exists()
        }
        if not found:
            continue
        latencies = measure_latencies({name: out / "runs" / name / "best.safetensors" for name in found})
        print(f"{title}\n\n| row | top-1 (%) | seeds | parameters (M) | MACs (M) | latency (ms) | hours |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, result in found.items():
            if "-seed" in name:
                continue
            same = [result, *(found[other] for other in found if other.startswith(f"{name}-seed"))]
            top1 = [100 * each["evaluation"]["top1"] for each in same]
            spread = f"{min(top1):.2f} to {max(top1):.2f}" if len(top1) > 1 else "1"
            parameters, macs = costs(out / "runs" / name / "best.safetensors")
            hours = statistics.mean(each["seconds"] for each in same) / 3600
            print(
                f"| {name} | {statistics.mean(top1):.2f} | {spread} | {parameters:.3f} | {macs:.1f} |"
                f" {latencies[name]:.3f} | {hours:.2f} |"
            )
        print()


def costs(checkpoint: Path) -> tuple[float, float]:
    """Millions of parameters and multiply-adds of the network as it is shipped, branches merged."""
    trained = read_checkpoint(checkpoint)
    size = trained.preprocessing["image_size"]
    cost = count(reparameterize(trained.build()), (3, size, size))
    return cost.params / 1e6, sum(layer.macs for layer in cost.layers) / 1e6


def measure_latencies(checkpoints: dict[str, Path], blocks: int = 5, runs: int = 200) -> dict[str, float]:
    """Milliseconds an image, all networks in turn."""
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    sessions = {name: engine.compile(path, threads=1) for name, path in checkpoints.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(blocks):
        for name, session in sessions.items():
            session(x)
            before = time.perf_counter()
            for _ in range(runs):
                session(x)
            times[name].append((time.perf_counter() - before) / runs)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
