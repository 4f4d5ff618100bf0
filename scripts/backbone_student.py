"""The network that scripts/make_backbone.py trains: GhostNet 1.0x with two classifiers, its losses and its weights."""

from argparse import Namespace
from pathlib import Path

import torch
from efficientnet_lite import TeacherMaps
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.checkpoints import read_checkpoint
from ghostnets.files import write_atomically
from ghostnets.models import create_model

ARCHITECTURE = "ghostnet_100"
FEATURE_WEIGHT = 3.0  # weight of the pooled-feature loss; the other losses have weight 1


class Student(nn.Module):
    """GhostNet with the teacher's classifier, frozen, and one for the classes of the labelled images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = create_model(ARCHITECTURE, num_classes=0)
        self.teacher_classifier = TeacherMaps().network._fc.requires_grad_(False)
        self.label_classifier = nn.Linear(self.network.head_features, num_classes)

    def stages(self) -> list[nn.Sequential]:
        """Return the parts of the network between the teacher's maps, from the image to the map before pooling."""
        network, blocks = self.network, self.network.blocks
        return [
            nn.Sequential(network.conv_stem, network.bn1, network.act1, blocks[0]),
            nn.Sequential(*blocks[1:3]),
            nn.Sequential(*blocks[3:5]),
            nn.Sequential(blocks[5], *blocks[6][:3]),
            nn.Sequential(*blocks[6][3:]),
            nn.Sequential(*blocks[7:]),
        ]

    def stagewise_losses(self, x: Tensor, maps: list[Tensor], pooled: Tensor) -> dict[str, Tensor]:
        """Return the losses of the stages, each run on the teacher's previous map.

        A map has many positions, so a quarter of the batch is enough for all stages but the last.
        """
        inputs, targets = [x, *maps], [*maps, None]
        losses = {}
        for number, (stage, before, target) in enumerate(zip(self.stages(), inputs, targets, strict=True)):
            count = len(x) if target is None else len(x) // 4
            output = stage(before[:count].contiguous(memory_format=torch.channels_last))
            if target is None:  # before the ReLU: a feature that is zero for every image would have no gradient
                losses |= self.distillation_losses(features := self.head(output), features, pooled)
            else:
                variance = target.var((0, 2, 3), keepdim=True)
                losses[f"stage {number}"] = ((output - target[:count]).square() / (variance + 1e-3)).mean()
        return losses

    def joint_losses(self, x: Tensor, pooled: Tensor, soft_labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the whole network; ``soft_labels`` (N, classes) are zero for images without label."""
        linear = self.head(self.network.forward_features(x))
        features = linear.relu()
        losses = self.distillation_losses(features, F.leaky_relu(linear, 0.1), pooled)
        log_probabilities = F.log_softmax(self.label_classifier(features), 1)
        return losses | {"labels": -(soft_labels * log_probabilities).sum() / soft_labels.sum().clamp(min=1)}

    def head(self, last_map: Tensor) -> Tensor:
        """Return the features (N, 1280) of the last map, before their ReLU."""
        return self.network.conv_head(self.network.global_pool(last_map)).flatten(1)

    def distillation_losses(self, features: Tensor, matched: Tensor, pooled: Tensor) -> dict[str, Tensor]:
        """Return the losses of ``matched`` and of the logits of ``features`` against the teacher's pooled features."""
        predicted = F.log_softmax(self.teacher_classifier(features), 1)
        return {
            "features": FEATURE_WEIGHT * (matched - pooled).square().mean() / pooled.var(0).mean(),
            "logits": F.kl_div(predicted, F.softmax(self.teacher_classifier(pooled), 1), reduction="batchmean"),
        }


def load_start(path: Path, num_classes: int) -> Student:
    """Return a student with the averaged weights of a run (state.pt) or the weights of a backbone (a checkpoint)."""
    if path.suffix == ".pt":
        return load_averaged_student(path)
    checkpoint = read_checkpoint(path)
    if checkpoint.architecture != ARCHITECTURE or checkpoint.arguments.get("num_classes") != 0:
        got = f"{checkpoint.architecture} with {checkpoint.arguments}"
        raise SystemExit(f"{path}: --start needs {ARCHITECTURE} with num_classes=0, got {got}.")
    student = Student(num_classes)
    student.network.load_state_dict(checkpoint.state_dict)
    return student


def load_averaged_student(path: Path) -> Student:
    """Load the moving average of the weights of a run, in evaluation mode."""
    average = torch.load(path)["average"]
    weights = {name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"}
    student = Student(len(weights["label_classifier.bias"]))
    student.load_state_dict(weights)
    return student.eval()


def interpolate(options: Namespace) -> None:
    """Write the averaged weights (1 - share) * first + share * second of two runs, statistics included."""
    share = options.share
    if not 0 <= share <= 1:
        raise SystemExit(
            f"The share of the second run must be between 0 and 1, got {share:g}; give its part of the mean."
        )
    first, second = torch.load(options.first)["average"], torch.load(options.second)["average"]
    average = {
        name: torch.lerp(first[name].double(), x.double(), share).to(x.dtype) if x.is_floating_point() else x
        for name, x in second.items()
    }
    with write_atomically(options.output) as path:
        torch.save({"average": average}, path)
