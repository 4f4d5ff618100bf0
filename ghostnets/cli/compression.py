"""Functions shared by ghostify and quantize: read the network and its images, measure agreement with the original."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.checkpoints import Checkpoint, build_network, read_checkpoint, read_weights
from ghostnets.cli.output import message
from ghostnets.data import find_sample
from ghostnets.errors import CheckpointError, DataError
from ghostnets.measure import wilson_interval
from ghostnets.preprocessing import Preprocessing

__all__ = ["BATCH", "compute_share", "format_agreement", "measure_agreement", "read_images", "read_source"]

HELD_OUT = 4  # every fourth image is held out for the comparison
BATCH = 16
IMAGENET_CLASSES = 1000


def read_source(source: str | Path, weights_file: Path | None, *, task: str | None = "classify") -> Checkpoint:
    """Read a checkpoint of a task, or of any with None; or build a classifier from a library's name and weights."""
    if not isinstance(source, str):
        return read_checkpoint(source, task=task)
    assert weights_file is not None
    weights = read_weights(weights_file, keeps_prefixes=True)
    with torch.device("meta"):
        last = list(build_network(source, {}).state_dict())[-1]
    count = len(weights.tensors[last]) if last in weights.tensors and weights.tensors[last].dim() else 0
    if not count:
        raise CheckpointError(f"{weights_file} has no tensor {last} of {source}; pass a state dict of that network.")
    arguments = {"num_classes": count}
    model = build_network(source, arguments)
    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{weights_file} does not fit {source}: {first}; pass its own state dict.") from error
    names = tuple(f"class_{number:04d}" for number in range(1, count + 1))
    preprocessing = _library_preprocessing(model, count)
    return Checkpoint(source, arguments, model.state_dict(), names, preprocessing, sha256=weights.sha256)


def _library_preprocessing(model: nn.Module, num_classes: int) -> Preprocessing:
    """Return the preprocessing that timm stores with a network, or the standard preprocessing at 224 pixels.

    torchvision's GoogLeNet and Inception-v3 with ImageNet's classes are those of its published weights, which read
    values from -1 to 1: torchvision converts images to these within the network (``transform_input``).
    """
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or "input_size" not in config:
        if not hasattr(model, "transform_input") or num_classes != IMAGENET_CLASSES:
            return Preprocessing.standard(224, 3)
        size, resize_to = (299, 342) if type(model).__name__ == "Inception3" else (224, 256)
        return Preprocessing(size, resize_to, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    size = int(config["input_size"][-1])
    resize_to = max(size, round(size / float(config.get("crop_pct") or 0.875)))
    interpolation = "bicubic" if config.get("interpolation") == "bicubic" else "bilinear"
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    return Preprocessing(size, resize_to, mean, std, interpolation)


def read_images(
    location: str,
    most: int,
    preprocessing: Preprocessing,
    class_names: Sequence[str] = (),
    *,
    has_masks: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Read images, normalised (N, C, H, W); which are held out for the comparison; labels, -1 for none, (N,).

    ``has_masks`` leaves out folders of masks, as in ``find_sample``.
    """
    sample = find_sample(location, most=most, class_names=class_names, splits=(), has_masks=has_masks)
    dataset, problems = sample.load(preprocessing, lambda: None)
    if problems:
        message(f"skipped {len(problems)} unreadable images: {' '.join(problems[:5])}")
    if len(dataset) < 2 * HELD_OUT:
        raise DataError(f"{location} has {len(dataset)} readable images; pass at least {2 * HELD_OUT}.")
    x = torch.stack([preprocessing.center(dataset[index]) for index in range(len(dataset))])
    return preprocessing.normalize(x), torch.arange(len(x)) % HELD_OUT == 0, dataset.labels


@torch.no_grad()
def measure_agreement(network: nn.Module, original: nn.Module, images: Tensor) -> dict[str, Any]:
    """Measure the share of images on which both networks predict the same class, with a Wilson interval."""
    same = sum(int((network(x).argmax(1) == original(x).argmax(1)).sum()) for x in images.split(BATCH))
    return compute_share(same, len(images))


def compute_share(count: int, total: int) -> dict[str, Any]:
    """Compute a share and its Wilson interval."""
    low, high = wilson_interval(count, total)
    return {"share": count / total, "low": low, "high": high}


def format_agreement(agreement: dict[str, Any]) -> tuple[str, str]:
    """Format the share and its interval for a table."""
    return f"{agreement['share']:.1%}", f"{agreement['low']:.1%} to {agreement['high']:.1%}"
