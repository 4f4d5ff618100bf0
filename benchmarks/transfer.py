"""Transfer from the embedded weights against training from scratch: top-1 and CPU minutes, mean and range over seeds.

    python benchmarks/transfer.py ants_bees --runs RUNS
    python benchmarks/transfer.py flowers --per-class 20 --seeds 0 --scratch

DATA is a folder that ``ghostnets train`` takes. Validation images select the best epoch, so the figures are a little
optimistic. ``--per-class N`` trains on N images of each class and validates on the others. Offline, one thread.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from ghostnets import __version__
from ghostnets.measure import processor_name
from ghostnets.preprocessing import IMAGE_SUFFIXES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--scratch", action="store_true", help="also train from random weights")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs; default: a temporary one")
    options = parser.parse_args()
    print(f"{processor_name()}, ghostnets {__version__}, torch {version('torch')}, one thread")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.runs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure("transfer", ["--weights", "embedded"], options, folder)
        if options.scratch:
            measure("from scratch", ["--weights", "none"], options, folder)


def measure(label: str, arguments: list[str], options: argparse.Namespace, folder: Path) -> None:
    """Train with each seed and print a line."""
    top1, minutes = [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            data = options.data.resolve()
            if options.per_class:
                data = take_per_class(data, options.per_class, seed, Path(temporary, data.name))
            accuracy, seconds = train(data, [*arguments, "--seed", str(seed)], folder)
        top1.append(100 * accuracy)
        minutes.append(seconds / 60)
    print(
        f"{label}: {statistics.mean(top1):.1f} % ({min(top1):.1f} to {max(top1):.1f}, seeds {options.seeds}),"
        f" {statistics.mean(minutes):.1f} CPU minutes",
        flush=True,
    )


def train(data: Path, arguments: list[str], folder: Path) -> tuple[float, float]:
    """Train; return the best validation accuracy and the processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ghostnets", "train", str(data), *arguments, "--json"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    return result["evaluation"]["top1"], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def take_per_class(data: Path, count: int, seed: int, target: Path) -> Path:
    """Create a folder of links: ``count`` seeded images of each class for training, the others for validation."""
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        random.Random(f"{seed} {folder.name}").shuffle(images)
        for number, image in enumerate(images):
            link = target / ("train" if number < count else "val") / folder.name / image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image)
    return target


if __name__ == "__main__":
    main()
