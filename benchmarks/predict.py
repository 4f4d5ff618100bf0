"""Benchmark of ``ghostnets predict``, from the command to the file of predictions.

The peer is timm's own inference.py: a folder of photographs, ghostnet_100, the same weights, wall time of whole
processes in interleaved pairs. Each combination of timm's documented options runs once first, and the fastest is used.

    python benchmarks/predict.py PHOTOS --inference timm/inference.py    pairs, ratio, agreement of top-1
    python benchmarks/predict.py PHOTOS --cold                           processor time to a first prediction
    python benchmarks/predict.py PHOTOS --cores                          images/s with 1, 2, ... cores

inference.py is in timm's repository, not in the installed package. Weights: --checkpoint, a ghostnet_100 of this
project. Without it the benchmark builds a network that distinguishes the photographs, since the package contains no
published weights: random layers, batch normalization calibrated on 64 of the photographs, and a classifier fitted to
all of them, each its own class (ridge regression).

Needs: pip install 'ghostnets[bench]' pandas
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.measure import processor_name
from ghostnets.models import create_model
from ghostnets.predict import find_files
from ghostnets.preprocessing import Preprocessing
from ghostnets.preprocessing.transform import REDUCED_SIDE

OPTIONS = {
    "float32": [],
    "channels-last": ["--channels-last"],
    "channels-last, bfloat16": ["--channels-last", "--amp", "--amp-dtype", "bfloat16"],
    "channels-last, bfloat16 model": ["--channels-last", "--model-dtype", "bfloat16"],
    "channels-last, torch.compile": ["--channels-last", "--torchcompile"],
    "channels-last, torchscript": ["--channels-last", "--torchscript"],
    "channels-last, torch.compile, bfloat16": ["--channels-last", "--torchcompile", "--amp", "--amp-dtype", "bfloat16"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--inference", type=Path, help="timm's inference.py")
    parser.add_argument("--checkpoint", type=Path, help="a ghostnet_100 of this project")
    parser.add_argument("--options", choices=OPTIONS, nargs="+", default=list(OPTIONS), help="timm's options to try")
    parser.add_argument("--batch-size", type=int, default=64, help="batch size of timm")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes of timm")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--cores", action="store_true")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "pillow", "numpy"))
    print(f"{processor_name()}, {cores} cores; Python {sys.version.split()[0]}, {packages}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint, weights = make_checkpoint(options.photos, options.checkpoint)
        print(f"{len(find_files([options.photos]))} photographs; weights: {weights}")
        plan = write_plan(checkpoint, work)
        if options.cold:
            measure_cold_start(plan, find_files([options.photos])[0])
        if options.inference:
            compare_with_timm(Timm(checkpoint, options, work), plan, options, work)
        if options.cores:
            measure_by_cores(plan, options.photos, work, cores)


def make_checkpoint(photos: Path, given: Path | None) -> tuple[Checkpoint, str]:
    """Weights for both programs, and a description of them."""
    if given is not None:
        checkpoint = read_checkpoint(given)
        return checkpoint, f"{given}, {checkpoint.architecture} of {len(checkpoint.class_names)} classes"
    torch.manual_seed(0)
    files = find_files([photos])
    model = create_model("ghostnet_100", num_classes=len(files), drop_rate=0).train()
    preprocessing = Preprocessing.standard(224, 3)

    def inputs(paths: list[Path]) -> torch.Tensor:
        return preprocessing.normalize(torch.stack([preprocessing.center(preprocessing.read(path)) for path in paths]))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    captured: list[torch.Tensor] = []
    classifier = model.get_submodule(model.classifier_name)
    classifier.register_forward_pre_hook(lambda _, arguments: captured.append(arguments[0]))
    with torch.inference_mode():
        model(inputs(files[:: -(-len(files) // 64)]))
        captured.clear()
        model.eval()
        for start in range(0, len(files), 50):
            model(inputs(files[start : start + 50]))
        features = torch.cat(captured).double()
        mean = features.mean(0)
        centred = features - mean
        gram = centred @ centred.T
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(files), dtype=torch.float64)
        weight = 20 * torch.linalg.inv(gram) @ centred  # (photographs, features): one row per class
        classifier.weight.copy_(weight)
        classifier.bias.copy_(-weight @ mean)
    checkpoint = Checkpoint(
        "ghostnet_100",
        {"num_classes": len(files)},
        model.state_dict(),
        tuple(path.stem for path in files),
        preprocessing,
    )
    return checkpoint, f"random layers, a classifier of {len(files)} classes fitted to the photographs themselves"


def write_plan(checkpoint: Checkpoint, work: Path) -> Path:
    description = Description(
        checkpoint.architecture, checkpoint.arguments, checkpoint.class_names, checkpoint.preprocessing
    )
    plan = work / "net.engine"
    engine.compile(checkpoint).save(plan, metadata={METADATA_KEY: description.to_json()})
    return plan


class Timm:
    """Command lines of timm's inference.py with the same weights and preprocessing."""

    def __init__(self, checkpoint: Checkpoint, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.classes = len(checkpoint.class_names)
        self.preprocessing = checkpoint.preprocessing
        torch.save(checkpoint.build().state_dict(), work / "timm.pth")

    def command(self, options: str) -> list[str]:
        p = self.preprocessing
        return [
            *(sys.executable, str(self.options.inference), "--data-dir", str(self.options.photos)),
            *("--model", "ghostnet_100", "--checkpoint", str(self.work / "timm.pth"), "--device", "cpu"),
            *("--num-classes", str(self.classes), "--img-size", str(p.image_size)),
            *("--crop-pct", str(p.image_size / p.resize_to), "--interpolation", p.interpolation),
            *("--mean", *map(str, p.mean), "--std", *map(str, p.std)),
            *("--batch-size", str(self.options.batch_size), "--workers", str(self.options.workers)),
            *("--topk", "1", "--label-type", "none", "--include-index", "--fullname", "--no-console-results"),
            *("--results-dir", str(self.work), "--results-file", "timm.csv"),
            *OPTIONS[options],
        ]


def compare_with_timm(timm: Timm, plan: Path, options: argparse.Namespace, work: Path) -> None:
    ours = [sys.executable, "-m", "ghostnets", "predict", str(plan), str(options.photos), "--out"]
    count = len(find_files([options.photos]))
    chosen, fastest = options.options[0], float("inf")
    for name in options.options if len(options.options) > 1 else ():
        taken = time_command(timm.command(name))
        print(f"  timm, {name}: {f'{taken:.1f} s' if taken else 'fails'}", flush=True)
        if taken and taken < fastest:
            chosen, fastest = name, taken
    seconds: dict[str, list[float]] = {"ghostnets": [], "timm": []}
    for pair in range(options.pairs):
        order = ("ghostnets", "timm") if pair % 2 else ("timm", "ghostnets")
        for name in order:
            command = [*ours, str(work / "ours.csv")] if name == "ghostnets" else timm.command(chosen)
            taken = time_command(command)
            if taken is None:
                sys.exit(f"{name} failed: {' '.join(command)}")
            seconds[name].append(taken)
    ratios = [slow / fast for slow, fast in zip(seconds["timm"], seconds["ghostnets"], strict=True)]
    print(f"whole processes, {options.pairs} pairs; timm: {chosen}, batch {options.batch_size},", end=" ")
    print(f"{options.workers} workers; median (min to max)")
    for name, values in seconds.items():
        rate = count / statistics.median(values)
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"  {name:<10} {statistics.median(values):6.2f} s {spread} {rate:6.0f} images/s")
    print(f"  ratio      {statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
    print_agreement(work, timm, options.photos)


def print_agreement(work: Path, timm: Timm, photos: Path) -> None:
    """Print the agreement of top-1 between both files."""
    with (work / "ours.csv").open(newline="") as stream:
        mine = {row["path"]: row["class_1"] for row in csv.DictReader(stream)}
    names = read_class_names(work / "net.engine")
    with (work / "timm.csv").open(newline="") as stream:
        theirs = {}
        for row in csv.DictReader(stream):
            path = row["filename"] if Path(row["filename"]).is_absolute() else str(photos / row["filename"])
            theirs[path] = names[int(row["index"].strip("[]"))]
    assert mine.keys() == theirs.keys(), "the two files have different photographs"
    same = sum(mine[path] == theirs[path] for path in mine)
    used = len(set(theirs.values()))
    limit = 2 * REDUCED_SIDE * timm.preprocessing.resize_to  # at half scale, REDUCED_SIDE * resize_to remain
    reduced = sum(min(Image.open(path).size) >= limit for path in mine)
    print(f"  the same top-1: {same} of {len(mine)} ({same / len(mine):.1%}); {used} classes occur;", end=" ")
    print(f"{reduced} photographs were decoded at reduced scale")


def read_class_names(plan: Path) -> tuple[str, ...]:
    from ghostnets.artefacts import open_model

    return open_model(plan, threads=1).description.class_names


def measure_cold_start(plan: Path, photo: Path) -> None:
    """Time the command for one photograph."""
    command = [sys.executable, "-m", "ghostnets", "predict", str(plan), str(photo)]
    time_command(command)
    wall, busy = [], []
    for _ in range(11):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time_command(command) or float("nan"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print("one photograph, 11 processes; median (min to max)")
    for name, values in (("processor time", busy), ("wall", wall)):
        print(f"  {name:<15} {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def measure_by_cores(plan: Path, photos: Path, work: Path, cores: int) -> None:
    """Time whole processes restricted to 1, 2, ... cores."""
    count = len(find_files([photos]))
    command = [sys.executable, "-m", "ghostnets", "predict", str(plan), str(photos), "--out", str(work / "ours.csv")]
    allowed = sorted(os.sched_getaffinity(0))
    for number in range(1, cores + 1):
        with affinity(set(allowed[:number])):
            seconds = [time_command(command) or float("nan") for _ in range(5)]
        rate = count / statistics.median(seconds)
        spread = f"{count / max(seconds):.0f} to {count / min(seconds):.0f}"
        print(f"  {number} cores: {rate:.0f} images/s ({spread}), {rate / number:.0f} a core, start included")


@contextmanager
def affinity(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def time_command(command: list[str]) -> float | None:
    """Wall time in seconds, or None if the command fails."""
    before = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    if process.returncode:
        print(process.stderr.strip().splitlines()[-1:], file=sys.stderr)
    return None if process.returncode else seconds


if __name__ == "__main__":
    main()
