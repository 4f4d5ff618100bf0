r"""Train a detector or a segmentation network with several seeds, and measure each on the test images.

    python benchmarks/training_seeds.py --data aquarium --work work --seeds 0 1 2 -- --task detect --skip-corrupt \
        --image-size 416 --epochs 100 --time-limit 89m --threads 1

The options after -- are those of ``ghostnets train``. Each seed is a run work/seed-N, one after the other; one that
exists is resumed, and a finished one is only measured, so the command can be repeated and given further seeds. The
figures are those of ``ghostnets eval``: of the split test, at the size of the images. Printed for each figure are the
mean, the standard deviation and the range over the seeds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ghostnets.measure import processor_name

SHOWN = {
    "mean_average_precision": "mAP",
    "ap50": "AP50",
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "iou": "IoU",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="images with labelled boxes or masks, with a test split"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("options", nargs="*", help="options of ghostnets train, after --")
    options = parser.parse_args()
    measure_seeds(options.data, options.work, options.seeds, options.options)


def measure_seeds(data: Path, work: Path, seeds: Sequence[int], options: Sequence[str]) -> None:
    """Train and evaluate each seed, and print its figures and their spread."""
    print(f"{processor_name()}, torch {version('torch')}; ghostnets train {data.name} {' '.join(options)}", flush=True)
    found: dict[str, list[float]] = {}
    for seed in seeds:
        run = work / f"seed-{seed}"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not (run / "result.json").exists():
            start = [str(data), "--runs-dir", str(work), "--name", run.name, "--seed", str(seed), *options]
            call("train", *(["--resume", str(run)] if (run / "config.json").exists() else start))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
        figures = flatten(json.loads(call("eval", str(run), str(data), "--part", "test", "--json", "--skip-corrupt")))
        epochs = len(json.loads((run / "result.json").read_text())["history"])
        shown = ", ".join(f"{name} {value:.1%}" for name, value in figures.items())
        print(f"seed {seed}: {epochs} epochs, {minutes:.1f} CPU minutes in this call; {shown}", flush=True)
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    print(f"\n| {len(seeds)} seeds | mean | standard deviation | lowest | highest |\n| --- | --- | --- | --- | --- |")
    for name, values in found.items():
        spread = f"{100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        print(f"| {name} | {statistics.mean(values):.1%} | {spread} | {min(values):.1%} | {max(values):.1%} |")


def call(*arguments: str) -> str:
    """Run a command of ghostnets; return what it prints, or end with its error."""
    done = subprocess.run([sys.executable, "-m", "ghostnets", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"ghostnets {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def flatten(values: dict[str, Any]) -> dict[str, float]:
    """The figures of all images, and of each class: name -> value."""
    found = {label: values[key] for key, label in SHOWN.items() if isinstance(values.get(key), float)}
    for row in values["classes"]:
        found |= {f"{SHOWN[key]} of {row['name']}": row[key] for key in ("ap50", "iou") if row.get(key) is not None}
    return found


if __name__ == "__main__":
    main()
