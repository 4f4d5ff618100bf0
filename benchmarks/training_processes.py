"""Scaling of training from one process to two, with one thread each.

    python benchmarks/training_processes.py

``ghostnets train`` and ``torchrun --nproc-per-node 2 -m ghostnets train`` alternate on the embedded Fashion-MNIST
subset, the latter twice: with the batch of the single process for each process, and with that batch shared. The figure
is images per second over the epochs after the first, from metrics.csv: it includes reading, averaging of gradients and
saving, but neither imports nor evaluation.

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


def images_per_second(folder: Path, name: str, processes: int, batch: int, options: argparse.Namespace) -> float:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    recipe = ["--model", options.model, "--batch-size", str(batch), "--epochs", str(options.epochs)]
    command = [*(launcher if processes > 1 else []), "-m", "ghostnets", "train", "--name", name, *recipe]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
    with (folder / "runs" / name / "metrics.csv").open(newline="") as file:
        return statistics.median(float(row["images_per_second"]) for row in list(csv.DictReader(file))[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ghostnet_100")
    parser.add_argument("--batch", type=int, default=128, help="batch size of the single process")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.model}, batches of {options.batch}; {processor_name()}")
    configurations = {
        "one": (1, options.batch),
        "two, a batch each": (2, 2 * options.batch),
        "two, shared batch": (2, options.batch),
    }
    ratios: dict[str, list[float]] = {name: [] for name in configurations}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            rates = {}
            for name, (processes, batch) in configurations.items():
                rates[name] = images_per_second(Path(folder), f"{number}-{name}", processes, batch, options)
                ratios[name].append(rates[name] / (2 * rates["one"]))
                print(f"{name}: {rates[name]:.0f} images/s", flush=True)
    for name, values in list(ratios.items())[1:]:
        print(f"{name}: {statistics.median(values):.3f} of twice one process ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
