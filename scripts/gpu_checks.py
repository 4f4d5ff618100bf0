"""Acceptance checks on a GPU: training, resuming, prediction, export, and speed against timm; a minute or two.

    python scripts/gpu_checks.py                    the accelerator that torch finds
    python scripts/gpu_checks.py --device cpu       the same checks, smaller, without one

One line per check; the exit code is 1 if one fails. Needs the package and torch; a check that needs more (tensorboard
for training, timm for the table of speeds) says so and is skipped. The images are generated.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ghostnets import create_model
from ghostnets.artefacts import load_classifier
from ghostnets.checkpoints import read_checkpoint
from ghostnets.devices import describe_device, select_device
from ghostnets.errors import GhostNetsError, MissingExtraError, require
from ghostnets.explain import measure_redundancy
from ghostnets.export import export_model
from ghostnets.measure import Runner, time_interleaved
from ghostnets.train import Callback, InterruptedRunError, resume_training, train_model
from ghostnets.train.hardware import resolve_precision
from ghostnets.train.step import AUTOCAST

SIZE, IMAGES = 64, 64  # side and number of the images of a class
OPTIONS = {"model": "ghostnet_050", "weights": None, "image_size": SIZE, "batch_size": 16, "epochs": 6, "lr": 0.05}
TOLERANCE = 0.02  # between probabilities on two devices; TF32 has three digits
PAIRS = {"ghostnet_100": "ghostnet_100", "ghostnetv2_100": "ghostnetv2_100", "ghostnetv3_100": "ghostnetv3_100"}


class Stop(Callback):
    """Interrupts the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step_end(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


class Checks:
    """The checks, in order; each returns a summary, or raises.

    Args:
        device: Device to check.
        folder: Folder for images and runs.
        is_smoke: Whether to use small inputs and few repetitions.
    """

    def __init__(self, device: torch.device, folder: Path, *, is_smoke: bool) -> None:
        self.device, self.folder, self.is_smoke = device, folder, is_smoke
        self.photos = folder / "photos"
        write_images(self.photos)

    def train(self) -> str:
        """Two classes of bright and dark noise are learned."""
        result = train_model(self.photos, folder=self.folder / "a", device=f"{self.device}", **self._quiet())
        check(result.evaluation.top1 >= 0.9, f"top-1 is {result.evaluation.top1:.1%}, expected at least 90 %")
        precision = resolve_precision("auto", self.device)
        return f"top-1 {result.evaluation.top1:.1%} in {precision}, {result.history[-1].images_per_second:.0f} images/s"

    def resume(self) -> str:
        """An interrupted run ends like the uninterrupted one: on a CPU with the same bits."""
        try:
            options = {**self._quiet(), "callbacks": [Stop(6)]}
            train_model(self.photos, folder=self.folder / "b", device=f"{self.device}", **options)
        except InterruptedRunError:
            resume_training(self.folder / "b", progress=False, report=False)
        first, second = (read_checkpoint(self.folder / name / "best.safetensors").state_dict for name in "ab")
        difference = max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
        check(self.device.type != "cpu" or difference == 0, f"the weights differ by up to {difference:.3g}")
        histories = [read_losses(self.folder / name) for name in "ab"]
        check(len(set(map(len, histories))) == 1, "the runs have different numbers of epochs")
        return f"largest difference of a weight {difference:.3g}, final losses {histories[0][-1]}, {histories[1][-1]}"

    def predict(self) -> str:
        """Probabilities on the device equal those on the CPU."""
        files = sorted(map(str, self.photos.rglob("*.png")))[:32]
        here, cpu = (
            load_classifier(self.folder / "a" / "best.safetensors", device=device)
            for device in (f"{self.device}", "cpu")
        )
        pixels = np.stack([cpu.read(file) for file in files])
        difference = float(np.abs(here.run(pixels).scores - cpu.run(pixels).scores).max())
        check(difference <= TOLERANCE, f"probabilities differ by up to {difference:.3g}")
        return f"largest difference of a probability {difference:.2g} ({here.model.runtime}, {cpu.model.runtime})"

    def export(self) -> str:
        """The network trained on the device is exported and verified."""
        report = export_model(
            self.folder / "a" / "best.safetensors", self.folder / "net.pt2", format="torch-export", images=self.photos
        )
        return f"{report.file}, largest difference {report.comparison.max_difference:.2g}"

    def explain(self) -> str:
        """The maps of the network have the same redundancy on the device and on the CPU."""
        network = read_checkpoint(self.folder / "a" / "best.safetensors").build()
        x = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        errors = []
        for device in (self.device, torch.device("cpu")):
            network.to(device)
            redundancy = measure_redundancy(network, lambda device=device: [x.to(device)])
            errors.append([layer.errors[3] for layer in redundancy.layers])
        difference = float(np.abs(np.subtract(*errors)).max())
        check(difference <= TOLERANCE, f"errors of predicted maps differ by up to {difference:.3g}")
        return f"{len(errors[0])} layers, largest difference of an error {difference:.2g}"

    def speed(self) -> str:
        """Images/s of forward passes and training steps, ours and timm's, interleaved in this process."""
        timm = require("timm", extra="bench")
        side, batch, runs = (64, 2, 1) if self.is_smoke else (224, 128, 20)
        x = torch.randn(batch, 3, side, side, device=self.device).to(memory_format=torch.channels_last)
        labels = torch.zeros(batch, dtype=torch.long, device=self.device)
        lines = [f"{batch} images of {side} pixels, images/s (ratio to timm)"]
        for name, peer in list(PAIRS.items())[: 1 if self.is_smoke else None]:
            networks = {"own": create_model(name), "timm": timm.create_model(peer)}
            for network in networks.values():
                network.to(self.device, memory_format=torch.channels_last)
            kinds: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
                "inference": lambda network: inference(network.eval(), x),
                "training": lambda network: training(network.train(), x, labels),
            }
            for kind, make in kinds.items():
                runners = {key: Runner(self._synchronized(make(network))) for key, network in networks.items()}
                timings = time_interleaved(runners, runs=runs, rounds=1 if self.is_smoke else 5)
                own, other = batch / timings["own"].median, batch / timings["timm"].median
                lines.append(f"{name:<16}{kind:<10}{own:>8.0f}  timm {other:>8.0f}  ({own / other:.2f})")
        return "\n    ".join(lines)

    def _quiet(self) -> dict[str, object]:
        return {**OPTIONS, "progress": False, "report": False}

    def _synchronized(self, action: Callable[[], object]) -> Callable[[], None]:
        """The action in the precision of the device, until the device has finished it."""
        autocast = AUTOCAST.get(resolve_precision("auto", self.device))

        def run() -> None:
            with torch.autocast(self.device.type, autocast) if autocast else nullcontext():
                action()
            if self.device.type != "cpu":
                torch.get_device_module(self.device.type).synchronize()

        return run


def inference(network: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: network(x))


def training(network: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(x).float(), labels).backward()
        optimizer.step()

    return step


def check(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


def write_images(folder: Path) -> None:
    """Two classes: noise on dark and on bright ground."""
    generator = np.random.default_rng(0)
    for name, ground in (("dark", 60), ("bright", 180)):
        (folder / name).mkdir(parents=True)
        for index in range(IMAGES):
            pixels = generator.normal(ground, 30, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03d}.png")


def read_losses(run: Path) -> list[str]:
    lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("val_loss")
    return [f"{float(line.split(',')[column]):.4f}" for line in lines[1:]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda, mps, xpu, cuda:1 or cpu")
    options = parser.parse_args(arguments)
    device = select_device(options.device)
    print(f"device   {describe_device(device)}, torch {torch.__version__}", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(device, Path(folder), is_smoke=device.type == "cpu")
        for name in ("train", "resume", "predict", "export", "explain", "speed"):
            try:
                print(f"{name:<9}ok: {getattr(checks, name)()}", flush=True)
            except MissingExtraError as error:
                print(f"{name:<9}skipped: {error}", flush=True)
            except (AssertionError, GhostNetsError, RuntimeError, OSError) as error:
                failures += 1
                print(f"{name:<9}FAILED: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
