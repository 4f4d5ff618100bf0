"""Train every network of docs/results.md under one recipe, and writes its tables and figures.

    python benchmarks/results.py train RUNS --cifar10 cifar10/    missing runs, two at a time, with one thread each
    python benchmarks/results.py train RUNS --cifar10 cifar10/ --only plain ghost-s2-d3
    python benchmarks/results.py write

Ctrl-C or kill interrupts the runs, which save their state; the same command resumes them. A finished run has a record
in docs/results/ and is not repeated while that exists; its weights are in RUNS/runs/NAME. ``write`` needs only the
records.

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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from ghostnets import engine
from ghostnets.compress import reparameterize
from ghostnets.files import write_text
from ghostnets.measure import count, processor_name
from ghostnets.models import create_model

DOCUMENTS = Path(__file__).parents[1] / "docs"
RECORDS = DOCUMENTS / "results"
BEGIN, END = "<!-- {}: benchmarks/results.py write -->", "<!-- end of {} -->"


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        data: Name of the data set.
        options: Options of ``ghostnets train``.
        weights: An option whose value is the best weights of another run, and the name of that run.
    """

    data: str
    options: tuple[str, ...]
    weights: tuple[str, str] | None = None

    @property
    def command(self) -> str:
        weights = () if self.weights is None else (self.weights[0], f"runs/{self.weights[1]}/best.safetensors")
        return " ".join(["ghostnets train", *self.source(self.data), *self.options, *weights])

    def source(self, folder: str) -> list[str]:
        """Data arguments of ``ghostnets train``."""
        return ["fashion-mnist", "--full", "--root", folder] if self.data == "fashion_mnist" else [folder]


def cifar10(*options: str, weights: tuple[str, str] | None = None) -> Row:
    return Row("cifar10", ("--recipe", "cifar10-fast", *options), weights)


def ghost(ratio: int, kernel: int, *options: str) -> Row:
    return cifar10("--model", "ghost_resnet20", f"--ratio={ratio}", f"--cheap-kernel-size={kernel}", *options)


TEACHER = "plain"  # the best plain network, with which the others are compared
DISTILLATION = ("--temperature", "4")
ABLATION = {
    TEACHER: cifar10("--model", "resnet20"),
    "ghost-s2-d3": ghost(2, 3),
    "ghost-s3-d3": ghost(3, 3),
    "ghost-s4-d3": ghost(4, 3),
    "ghost-s5-d3": ghost(5, 3),
    "ghost-s2-d1": ghost(2, 1),
    "ghost-s2-d5": ghost(2, 5),
    "ghost-s2-d7": ghost(2, 7),
    # Three seeds of the two networks of the main claim.
    "plain-seed1": cifar10("--model", "resnet20", "--seed", "1"),
    "ghost-s2-d3-seed1": ghost(2, 3, "--seed", "1"),
    "plain-seed2": cifar10("--model", "resnet20", "--seed", "2"),
    "ghost-s2-d3-seed2": ghost(2, 3, "--seed", "2"),
}
FAMILY = {
    f"{model}{suffix}": cifar10("--model", model, *options, weights=weights)
    for model in (
        *("ghostnet_100", "ghostnet_050", "ghostnetv2_050", "ghostnetv3_050"),
        *("ghostnetv2_100", "ghostnetv3_100"),
    )
    for suffix, options, weights in (("", (), None), ("-distilled", DISTILLATION, ("--teacher", TEACHER)))
}
PHOTOS = ("--image-size", "96", "--epochs", "30")
FINETUNING = {
    "ants-scratch": Row("ants_bees", ("--recipe", "photos", *PHOTOS)),
    "ants-finetune": Row("ants_bees", ("--recipe", "finetune", *PHOTOS), ("--weights", "ghostnet_100")),
    "ants-head": Row("ants_bees", ("--recipe", "finetune-head", *PHOTOS), ("--weights", "ghostnet_100")),
}
FASHION = {
    "fashion": Row(
        "fashion_mnist",
        ("--model", "ghostnet_100", "--recipe", "cifar10-fast", "--epochs=12", "--no-flip", "--shift=2"),
    ),
}
TABLES = {"ablation": ABLATION, "family": FAMILY, "finetuning": FINETUNING, "fashion": FASHION}
ROWS = ABLATION | FAMILY | FINETUNING | FASHION
DATA = sorted({row.data for row in ROWS.values()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("runs", type=Path)
    for name in DATA:
        train.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FOLDER")
    train.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    train.add_argument("--jobs", type=int, default=2, help="runs in parallel, with one thread each")
    commands.add_parser("write")
    options = parser.parse_args()
    if options.command == "write":
        write_document()
        return
    folders = {name: folder.resolve() for name in DATA if (folder := getattr(options, name)) is not None}
    rows = [name for name in options.only or ROWS if ROWS[name].data in folders]
    options.runs.mkdir(parents=True, exist_ok=True)
    sys.exit(Runs(folders, options.runs.resolve()).train(rows, options.jobs))


class Runs:
    """Runs in parallel, each in its own process; a signal interrupts all of them after saving their state."""

    def __init__(self, folders: dict[str, Path], out: Path) -> None:
        self.folders, self.out = folders, out
        self.waiting: SimpleQueue[str] = SimpleQueue()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.failed: list[str] = []
        self.is_interrupted = False

    def train(self, names: list[str], jobs: int) -> int:
        for name in names:
            if not record_file(name).exists():
                self.waiting.put(name)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.interrupt())
        workers = [threading.Thread(target=self.work) for _ in range(jobs)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.5)  # join would delay signals
        if self.failed:
            print(f"failed: {', '.join(self.failed)}; see their .log", file=sys.stderr)
        return int(bool(self.failed)) or (130 if self.is_interrupted else 0)

    def interrupt(self) -> None:
        self.is_interrupted = True
        for process in list(self.running.values()):
            process.terminate()

    def work(self) -> None:
        while not self.is_interrupted:
            try:
                name = self.waiting.get_nowait()
            except Empty:
                return
            self.run(name)

    def run(self, name: str) -> None:
        row, folder = ROWS[name], self.out / "runs" / name
        if (folder / "config.json").exists():
            arguments = ["--resume", str(folder)]
        else:
            arguments = [*row.source(str(self.folders[row.data])), "--name", name, *row.options]
            if row.weights is not None:
                option, other = row.weights
                weights = self.out / "runs" / other / "best.safetensors"
                if not record_file(other).exists() or not weights.exists():
                    self.failed.append(f"{name} (needs {weights}, the weights of a finished run)")
                    return
                arguments += [option, str(weights)]
        with (self.out / f"{name}.log").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "ghostnets", "train", *arguments, "--json"],
                cwd=self.out,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.running[name] = process
        assert process.stdout is not None
        result = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        del self.running[name]
        cpu_seconds = self.out / f"{name}.cpu"  # one line per session of the run
        with cpu_seconds.open("a", encoding="utf-8") as file:
            print(usage.ru_utime + usage.ru_stime, file=file)
        if process.returncode == 0:
            write_record(name, json.loads(result), folder, sum(map(float, cpu_seconds.read_text().split())))
        elif not self.is_interrupted:
            self.failed.append(name)


def record_file(name: str) -> Path:
    return RECORDS / f"{name}.json"


def write_record(name: str, result: dict[str, Any], folder: Path, cpu_seconds: float) -> None:
    config = json.loads((folder / "config.json").read_text())
    record = {
        "command": ROWS[name].command,
        "model": config["recipe"]["model"],
        "arguments": config["arguments"],
        "recipe": config["recipe"] | dict.fromkeys(("weights", "teacher")),  # paths, which are in the command
        "image_size": config["preprocessing"]["image_size"],
        "part": result["part"],
        "evaluation": result["evaluation"],
        "best_epoch": result["best_epoch"],
        "history": result["history"],
        "cpu_seconds": round(cpu_seconds),
        "processor": processor_name(),
        "torch": version("torch"),
    }
    RECORDS.mkdir(exist_ok=True)
    write_text(record_file(name), json.dumps(record, indent=1) + "\n")
    print(f"{name}: {record['evaluation']['top1']}", flush=True)


def write_document() -> None:
    """Write the tables and figures of docs/results.md from the records."""
    document = DOCUMENTS / "results.md"
    text = document.read_text(encoding="utf-8")
    records = {name: json.loads(record_file(name).read_text()) for name in ROWS if record_file(name).exists()}
    measured = measure_shipped(records)
    for title, rows in TABLES.items():
        before, rest = text.split(BEGIN.format(title))
        after = rest.split(END.format(title))[1]
        table = table_of({name: records[name] for name in rows if name in records}, measured)
        missing = [f"`{name}`" for name in rows if name not in records]
        note = f"\nNot trained yet: {', '.join(missing)}.\n" if missing else ""
        text = f"{before}{BEGIN.format(title)}\n\n{table}{note}\n{END.format(title)}{after}"
    document.write_text(text, encoding="utf-8")
    draw_ablation(records)
    draw_family(records, measured)


def table_of(records: dict[str, Any], measured: dict[str, tuple[float, float, float]]) -> str:
    lines = [
        "| run | top-1 (%) | seeds | parameters (M) | MACs (M) | latency (ms) | CPU minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in records:
        if "-seed" in name:
            continue
        same = with_seeds(name, records)
        top1 = [100 * each["evaluation"]["top1"] for each in same]
        spread = f"{len(top1)} ({min(top1):.2f} to {max(top1):.2f})" if len(top1) > 1 else "1"
        minutes = statistics.mean(each["cpu_seconds"] for each in same) / 60
        params, macs, latency = measured[name]
        lines.append(
            f"| [`{name}`](results/{name}.json) | {statistics.mean(top1):.2f} | {spread} |"
            f" {params:.3f} | {macs:.1f} | {latency:.3f} | {minutes:.0f} |"
        )
    commands = "\n".join(f"    {record['command']}" for record in records.values())
    return "\n".join([*lines, "", commands, ""])


def with_seeds(name: str, records: dict[str, Any]) -> list[Any]:
    """Records of a row with all seeds."""
    return [record for other, record in records.items() if other == name or other.startswith(f"{name}-seed")]


def measure_shipped(records: dict[str, Any], blocks: int = 7, runs: int = 200) -> dict[str, tuple[float, float, float]]:
    """Millions of parameters, millions of MACs and milliseconds per image of each network with its branches merged.

    Latency in the engine, float32, one thread, batch 1: median of blocks that alternate between all networks.
    """
    costs, sessions, images = {}, {}, {}
    for name, record in records.items():
        size = record["image_size"]
        model = reparameterize(create_model(record["model"], **record["arguments"]).eval())
        cost = count(model, (record["recipe"]["in_chans"], size, size))
        costs[name] = cost.params / 1e6, sum(layer.macs for layer in cost.layers) / 1e6
        sessions[name] = engine.compile(model, threads=1)
        images[name] = np.random.default_rng(0).random((1, record["recipe"]["in_chans"], size, size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(blocks):
        for name, session in sessions.items():
            session(images[name])
            before = time.perf_counter()
            for _ in range(runs):
                session(images[name])
            times[name].append((time.perf_counter() - before) / runs)
    return {name: (*costs[name], 1e3 * statistics.median(times[name])) for name in sessions}


def draw_ablation(records: dict[str, Any]) -> None:
    """Plot accuracy against the ratio, and against the kernel size of the cheap operations."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    ablations = {"ratio s (d = 3)": [(s, f"ghost-s{s}-d3") for s in (2, 3, 4, 5)]}
    ablations["cheap kernel d (s = 2)"] = [(d, f"ghost-s2-d{d}") for d in (1, 3, 5, 7)]
    for axis, (label, rows) in zip(axes, ablations.items(), strict=True):
        for style, names in (("o-", rows), ("s--", [(rows[0][0], TEACHER), (rows[-1][0], TEACHER)])):
            found = [(x, [100 * r["evaluation"]["top1"] for r in with_seeds(n, records)]) for x, n in names]
            means = [(x, statistics.mean(top1), top1) for x, top1 in found if top1]
            if means:
                spread = [[m - min(t) for _, m, t in means], [max(t) - m for _, m, t in means]]
                name = "Ghost-ResNet-20" if names is rows else "ResNet-20"
                axis.errorbar(
                    *zip(*((x, m) for x, m, _ in means), strict=True), spread, fmt=style, capsize=3, label=name
                )
        axis.set_xlabel(label)
        axis.set_xticks([x for x, _ in rows])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1 (%), CIFAR-10 as JPEG")
    axes[0].legend()
    figure.savefig(DOCUMENTS / "figures" / "results-ablation.png", dpi=150)


def draw_family(records: dict[str, Any], measured: dict[str, tuple[float, float, float]]) -> None:
    """Plot accuracy against latency: a line from 0.5x to 1.0x for each generation, with and without distillation."""
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for colour, generation in enumerate(("ghostnet", "ghostnetv2", "ghostnetv3")):
        for suffix, style in (("", "o--"), ("-distilled", "o-")):
            names = [name for width in ("050", "100") if (name := f"{generation}_{width}{suffix}") in records]
            latency = [measured[name][2] for name in names]
            top1 = [100 * records[name]["evaluation"]["top1"] for name in names]
            axis.plot(latency, top1, style, color=f"C{colour}", label=f"{generation}{suffix}")
    if TEACHER in records:
        top1 = 100 * records[TEACHER]["evaluation"]["top1"]
        axis.plot(measured[TEACHER][2], top1, "k*", markersize=10, label="resnet20 (teacher)")
    axis.set_xlabel("latency in the engine (ms)")
    axis.set_ylabel("top-1 (%), CIFAR-10 as JPEG")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(DOCUMENTS / "figures" / "results-family.png", dpi=150)


if __name__ == "__main__":
    main()
