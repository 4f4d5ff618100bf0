"""How much faster do two processes train than one, of one thread each?

    python benchmarks/training_processes.py

``ghostnets train`` and ``torchrun --nproc-per-node 2 -m ghostnets train`` take turns on the embedded Fashion-MNIST
subset, with one recipe, so the two processes share each batch. What counts is images a second over the epochs after
the first, from metrics.csv: reading, averaging of gradients and saving included, imports and evaluation not.

Needs: pip install 'ghostnets[train]'
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ghostnets.measure import processor_name


def images_per_second(folder: Path, name: str, processes: int, options: argparse.Namespace) -> float:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    recipe = ["--model", options.model, "--batch-size", str(options.batch), "--epochs", str(options.epochs)]
    command = [*(launcher if processes > 1 else []), "-m", "ghostnets", "train", "--name", name, *recipe]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
    with (folder / "runs" / name / "metrics.csv").open(newline="") as file:
        return statistics.median(float(row["images_per_second"]) for row in list(csv.DictReader(file))[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ghostnet_100")
    parser.add_argument("--batch", type=int, default=128, help="images, of all processes together")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.model}, batches of {options.batch}; {processor_name()}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            one, two = (images_per_second(Path(folder), f"{number}-{n}", n, options) for n in (1, 2))
            ratios.append(two / (2 * one))
            print(f"one process {one:.0f}, two {two:.0f} images/s: {ratios[-1]:.3f} of twice one", flush=True)
    print(f"median {statistics.median(ratios):.3f} of twice one process ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
