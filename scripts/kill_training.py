#!/usr/bin/env python3
"""Kill a training run at random times (SIGKILL), resume it each time, and compare it with an uninterrupted run.

Four configurations: one process and two (torchrun), a folder of images and shards of them. The images are random noise;
best.safetensors and the weights of the last state are compared bit by bit.

    scripts/kill_training.py                 20 kills per configuration, about ten minutes
    scripts/kill_training.py --kills 3 --seed 1
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

OPTIONS = ["--model", "ghost_resnet20", "--epochs", "40", "--batch-size", "16", "--lr", "0.02", "--drop-rate", "0.1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = make_images(work / "images")
        shards = work / "shards"
        subprocess.run(
            [*ghostnets(1), "shard", str(images), str(shards)], cwd=work, check=True, stdout=subprocess.DEVNULL
        )
        is_same = True
        for processes in (1, 2):
            for data in (images, shards):
                is_same &= compare(work, data, processes, options.kills, random.Random(options.seed))
    sys.exit(0 if is_same else 1)


def make_images(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    for split, count in (("train", 64), ("val", 16)):
        for name in ("a", "b", "c"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def ghostnets(processes: int) -> list[str]:
    module = ["-m", "ghostnets"]
    if processes == 1:
        return [sys.executable, *module]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, *module]


def start(work: Path, data: Path, processes: int, name: str) -> subprocess.Popen[bytes]:
    """Start the command that begins or resumes the run."""
    run = work / "runs" / name
    arguments = ["--resume", str(run)] if (run / "config.json").exists() else [str(data), "--name", name, *OPTIONS]
    return subprocess.Popen(
        [*ghostnets(processes), "train", *arguments],
        cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"training ended with {process.returncode}: {errors.decode()[-2000:]}")


def compare(work: Path, data: Path, processes: int, kills: int, generator: random.Random) -> bool:
    configuration = f"{processes} process{'es' if processes > 1 else ''}, {data.name}"
    names = [f"{data.name}-{processes}-{kind}" for kind in ("whole", "killed")]
    whole, killed = (work / "runs" / name for name in names)
    before = time.monotonic()
    finish(start(work, data, processes, whole.name))
    seconds = time.monotonic() - before
    epoch = seconds / epochs_of(whole)
    done: list[int] = []
    for moment in sorted(generator.uniform(0, epochs_of(whole)) for _ in range(kills)):
        process = start(work, data, processes, killed.name)
        while epochs_of(killed) < int(moment) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moment % 1 * epoch)  # for a run that already has this epoch, during its start
        if process.poll() is not None:
            finish(process)  # an error, or the end of the run
            break
        # Everything whose command names this folder: torchrun gives its workers sessions of their own.
        subprocess.run(["pkill", "-KILL", "-f", str(work)], check=True)
        process.communicate()
        done.append(epochs_of(killed))
    finish(start(work, data, processes, killed.name))
    same = all(equal(tensors(whole, name), tensors(killed, name)) for name in ("best.safetensors", "last.pt"))
    print(
        f"{configuration}: {len(done)} kills, after epochs {', '.join(map(str, done))} of {epochs_of(whole)};"
        f" {'the same bits' if same else 'OTHER WEIGHTS'}",
        flush=True,
    )
    return same and len(done) == kills


def epochs_of(run: Path) -> int:
    """Finished epochs."""
    metrics = run / "metrics.csv"
    return max(0, len(metrics.read_text(encoding="utf-8").splitlines()) - 1) if metrics.exists() else 0


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    if name.endswith(".safetensors"):
        return load_file(run / name)
    state = torch.load(run / name, weights_only=True)
    return {key: value for key, value in state["model"].items() if isinstance(value, torch.Tensor)}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    main()
