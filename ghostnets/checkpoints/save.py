"""The checkpoint format of this project: one safetensors file with everything that inference needs."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ghostnets.checkpoints.architecture import build_network, task_of
from ghostnets.checkpoints.sources import rename_to_timm
from ghostnets.errors import ConfigurationError
from ghostnets.files import write_atomically
from ghostnets.models import GhostNet
from ghostnets.preprocessing import Preprocessing

__all__ = ["FORMAT_VERSION", "METADATA_KEY", "Checkpoint", "save_checkpoint", "to_timm_state_dict"]

METADATA_KEY = "ghostnets"
"""Key of a checkpoint's description in the metadata of its safetensors file."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with everything that inference needs.

    Attributes:
        architecture: Name in the registry of networks, detectors or segmentation networks, or ``timm:NAME`` or
            ``torchvision:NAME``.
        arguments: Keyword arguments of ``create_model``, ``{"num_classes": 10, "in_chans": 1, ...}``, or of
            ``create_detector`` or ``create_segmenter``: ``{"num_classes": 3, "backbone": "ghostnetv2_100"}``.
        changes: Changes that compression made in this architecture, in order (``ghostnets.compress.apply_changes``).
        state_dict: Weights and batch-normalisation statistics.
        class_names: Class names in the order of the logits.
        preprocessing: Preprocessing that turns an image into the input.
        temperature: Temperature T of calibrated probabilities, ``softmax(logits / T)``; None if not calibrated.
        float_layers: Names of layers that int8 exports keep in float32, as ``ghostnets.compress.quantize`` chose them.
        multi_label: Whether an image has any number of classes: probabilities are then ``sigmoid(logits / T)``.
        training: Provenance of the weights: data, recipe, epoch, accuracy. Informative only.
        sha256: SHA-256 of the file that the checkpoint was read from, or "".
    """

    architecture: str
    arguments: dict[str, Any]
    state_dict: dict[str, Tensor]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float | None = field(default=None, kw_only=True)
    changes: tuple[dict[str, Any], ...] = field(default=(), kw_only=True)
    float_layers: tuple[str, ...] = field(default=(), kw_only=True)
    multi_label: bool = field(default=False, kw_only=True)
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def task(self) -> str:
        """``"classify"``, ``"detect"`` or ``"segment"``."""
        return task_of(self.architecture)

    def build(self) -> nn.Module:
        """Build the network with these weights, in evaluation mode."""
        model = build_network(self.architecture, self.arguments, self.changes)
        model.load_state_dict(self.state_dict)
        return model.eval()


def to_timm_state_dict(model: GhostNet) -> dict[str, Tensor]:
    """State dict under timm's names, for ``timm.create_model(name).load_state_dict(...)`` with equal outputs.

    timm has GhostNet and GhostNetV2 (whose names are the same) and GhostNetV3, in training form or merged
    (``reparameterize`` here, ``timm.utils.reparameterize_model`` there).

    Args:
        model: GhostNet, GhostNetV2 or GhostNetV3, with the arguments that timm has: ``width``, ``num_classes``,
            ``in_chans``.

    Raises:
        ConfigurationError: timm has no such network, or computes it with another stride.
    """
    if not isinstance(model, GhostNet):
        raise ConfigurationError(
            f"timm has no {type(model).__name__}; pass a GhostNet, GhostNetV2 or GhostNetV3 of this package."
        )
    if model.feature_levels[-1].stride != 32:
        raise ConfigurationError(
            "timm's GhostNets have an output stride of 32; build the network without small_input and output_stride."
        )
    return rename_to_timm(model.state_dict())


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        StorageError: The file could not be written; an existing one is left untouched.
    """
    description = {
        "format_version": FORMAT_VERSION,
        "architecture": checkpoint.architecture,
        "arguments": checkpoint.arguments,
        "class_names": list(checkpoint.class_names),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "training": checkpoint.training,
        **({} if checkpoint.temperature is None else {"temperature": checkpoint.temperature}),
        **({"changes": list(checkpoint.changes)} if checkpoint.changes else {}),
        **({"float_layers": list(checkpoint.float_layers)} if checkpoint.float_layers else {}),
        **({"multi_label": True} if checkpoint.multi_label else {}),
        **({} if checkpoint.task == "classify" else {"task": checkpoint.task}),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.state_dict.items()}
    content = save(tensors, metadata={METADATA_KEY: json.dumps(description)})
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)  # unlike save_file, it reports why it failed
