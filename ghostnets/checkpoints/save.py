"""The project's own checkpoint: one safetensors file that carries all that prediction needs."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ghostnets.files import write_atomically
from ghostnets.models import create_model

__all__ = ["FORMAT_VERSION", "METADATA_KEY", "Checkpoint", "save_checkpoint"]

METADATA_KEY = "ghostnets"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network with everything needed to ask it something.

    Attributes:
        architecture: Name in the registry.
        arguments: Keyword arguments of ``create_model``: ``{"num_classes": 10, "in_chans": 1, ...}``.
        state_dict: Weights and batch-normalisation statistics.
        class_names: One name a class, in the order of the logits.
        preprocessing: What turns an image into the input, as ``data.Preprocessing.to_dict`` gives it.
        training: Facts about where the weights come from: data, epochs, accuracy. Informative only.
        sha256: Of the file that it was read from, or "".
    """

    architecture: str
    arguments: dict[str, Any]
    state_dict: dict[str, Tensor]
    class_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def build(self) -> nn.Module:
        """The network with these weights, in evaluation mode."""
        model = create_model(self.architecture, **self.arguments)
        model.load_state_dict(self.state_dict)
        return model.eval()


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, atomically.

    Raises:
        StorageError: The file could not be written; an older one there is untouched.
    """
    description = {
        "format_version": FORMAT_VERSION,
        "architecture": checkpoint.architecture,
        "arguments": checkpoint.arguments,
        "class_names": list(checkpoint.class_names),
        "preprocessing": checkpoint.preprocessing,
        "training": checkpoint.training,
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.state_dict.items()}
    content = save(tensors, metadata={METADATA_KEY: json.dumps(description)})
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)  # Python's own write says what is wrong where it fails
