"""A checkpoint or an exported file as a module for ``train.evaluate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.artefacts import SUFFIXES, Model, open_model
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.output import message
from ghostnets.devices import describe_device, select_device
from ghostnets.errors import RunError
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import RunFolder

__all__ = ["EvaluatedNetwork", "open_network", "open_spatial", "read_training"]

MIN_PROBABILITY = 1e-38  # smaller probabilities returned by a file are 0 in float32
MIN_COMPLEMENT = 1e-7  # distance of a probability from 1; float32 does not resolve smaller ones


@dataclass(frozen=True)
class EvaluatedNetwork:
    """A network to evaluate.

    Attributes:
        model: Module from images, as ``transform`` returns them, to logits (N, classes), without temperature.
        transform: Preprocessing for ``evaluate``.
        preprocessing: Preprocessing of the network.
        class_names: Class names in the order of the logits.
        multi_label: Whether an image can have several classes, or none.
        temperature: Temperature that calibrates the logits, or None; probabilities of a file have it applied.
        training: Provenance, as in a checkpoint; for an exported file, of the run in its folder, if there is one.
        device: Device that the images are moved to.
        runtime: Name and version of the runtime.
    """

    model: nn.Module
    transform: Any
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    multi_label: bool
    temperature: float | None
    training: dict[str, Any]
    device: torch.device
    runtime: str

    def build(self, *, temperature: float | None, flip: bool) -> nn.Module:
        """Return a module with temperature, whose probabilities are averaged over the flips if requested."""
        return _Calibrated(self.model, temperature, flip=flip, multi_label=self.multi_label)


def open_network(path: Path, device: str, *, threads: int | None = None) -> EvaluatedNetwork:
    """Open a checkpoint, which eager torch runs on the device, or an exported file, which its runtime runs.

    Args:
        path: The file.
        device: Name of a checkpoint's device, as for ``select_device``.
        threads: Number of threads of an exported file; all processors by default, for MNN one.

    Raises:
        GhostNetsError: The errors of ``read_checkpoint`` and ``open_model``.
    """
    if _is_checkpoint(path):
        selected, checkpoint = select_device(device), read_checkpoint(path)
        return EvaluatedNetwork(
            model=checkpoint.build().to(selected).to(memory_format=torch.channels_last),
            transform=checkpoint.preprocessing,
            preprocessing=checkpoint.preprocessing,
            class_names=checkpoint.class_names,
            multi_label=checkpoint.multi_label,
            temperature=checkpoint.temperature,
            training=checkpoint.training,
            device=selected,
            runtime=f"torch {torch.__version__} on {describe_device(selected)}",
        )
    opened = open_model(path, threads=threads, device=device)
    description = opened.description
    return EvaluatedNetwork(
        model=_ArtefactLogits(opened),
        transform=_RawPixels(description.preprocessing),
        preprocessing=description.preprocessing,
        class_names=description.class_names,
        multi_label=description.multi_label,
        temperature=description.temperature if description.output == "logits" else None,
        training=read_training(path),
        device=torch.device("cpu"),
        runtime=f"{opened.runtime}, {description.precision}",
    )


def open_spatial(path: Path, device: str) -> Model | None:
    """Open a detector or segmentation network with one thread, of which workers make copies; None for a classifier.

    Raises:
        GhostNetsError: The errors of ``read_checkpoint`` and ``open_model``.
    """
    if _is_checkpoint(path) and read_checkpoint(path, task=None).task == "classify":
        return None
    model = open_model(path, threads=1, device=device)
    return None if model.description.task == "classify" else model


def _is_checkpoint(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.suffix not in SUFFIXES


def read_training(path: Path) -> dict[str, Any]:
    """Read recipe, data and identity, which determine the split, of the run in a file's folder; empty without a run."""
    try:
        config = RunFolder(path.parent).read_config()
    except RunError as error:
        if (path.parent / "config.json").exists():
            message(f"the split of the run's own validation images is not known: {error}")
        return {}
    return {"recipe": config.recipe.to_dict(), "data": config.data, "data_identity": config.identity}


class _RawPixels:
    """Preprocessing without normalisation, which is part of the exported file."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.center = preprocessing.center

    def normalize(self, images: Tensor) -> Tensor:
        return images


class _ArtefactLogits(nn.Module):
    """An exported file as a module: uint8 (N, C, S, S) -> logits (N, classes), also from probabilities."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.opened = model

    def forward(self, pixels: Tensor) -> Tensor:
        scores = torch.from_numpy(self.opened.run(pixels.permute(0, 2, 3, 1).contiguous().numpy()).scores.copy())
        if self.opened.description.output != "probabilities":
            return scores
        if self.opened.description.multi_label:
            return scores.double().clamp(MIN_PROBABILITY, 1 - MIN_COMPLEMENT).logit().float()
        return scores.clamp_min(MIN_PROBABILITY).log()


class _Calibrated(nn.Module):
    """A network with a temperature, whose probabilities are averaged over both flips if requested."""

    def __init__(self, model: nn.Module, temperature: float | None, *, flip: bool, multi_label: bool) -> None:
        super().__init__()
        self.model, self.temperature, self.flip, self.multi_label = model, temperature, flip, multi_label

    def forward(self, images: Tensor) -> Tensor:
        if not self.flip:
            return self._logits(images)
        logits = [self._logits(x).float() for x in (images, images.flip(3))]
        if self.multi_label:
            mean = torch.stack([x.double().sigmoid() for x in logits]).mean(0)
            return mean.clamp(MIN_PROBABILITY, 1 - MIN_COMPLEMENT).logit().float()
        both = [x.log_softmax(1) for x in logits]
        return torch.stack(both).logsumexp(0)  # twice the mean; a constant leaves the probabilities

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits if self.temperature is None else logits / self.temperature
