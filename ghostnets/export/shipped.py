"""The network as it is shipped: fused, with preprocessing before it and softmax behind it, and traced once."""

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ghostnets.artefacts import Description
from ghostnets.artefacts.model import normalize
from ghostnets.artefacts.scores import Array
from ghostnets.checkpoints import Checkpoint
from ghostnets.compress import fuse
from ghostnets.errors import ExportError
from ghostnets.models import Network

__all__ = ["Order", "Shipped", "trace"]

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}


@dataclass(frozen=True)
class Order:
    """What a format is asked to write.

    Attributes:
        checkpoint: The network.
        description: What the file shall be, and shall say of itself.
        calibration: For int8: uint8 (N, S, S, C), real images to take the ranges from; empty otherwise.
    """

    checkpoint: Checkpoint
    description: Description
    calibration: npt.NDArray[np.uint8]

    def calibration_batches(self) -> list[npt.NDArray[np.uint8] | Array]:
        """The calibration images one at a time, as the input of the file takes them."""
        takes_bytes = self.description.input == "uint8"
        batches = [self.calibration[i : i + 1] for i in range(len(self.calibration))]
        return [batch if takes_bytes else normalize(batch, self.description.preprocessing) for batch in batches]


class Shipped(nn.Module):
    """Images as ``description.input`` says -> (scores,) or (scores, features), float32.

    Args:
        network: In evaluation mode; it is left alone.
        description: What shall be inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, description: Description) -> None:
        super().__init__()
        self.dtype = DTYPES[description.precision]
        fused = fuse(network)
        assert isinstance(fused, Network)
        # Without its last layer a network answers with what that layer takes.
        self.classifier = copy.deepcopy(fused.get_submodule(fused.classifier_name)).to(self.dtype)
        fused.reset_classifier(0)
        self.network = fused.to(self.dtype)
        self.takes_bytes = description.input == "uint8"
        self.gives_probabilities, self.gives_features = description.output == "probabilities", description.has_features
        for name, values in (("mean", description.preprocessing.mean), ("std", description.preprocessing.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.takes_bytes:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (N, H, W, C) -> (N, C, H, W)
        features = self.network(images.to(self.dtype))
        scores = self.classifier(features).float()
        if self.gives_probabilities:
            scores = scores.softmax(1)
        return (scores, features.float()) if self.gives_features else (scores,)


def trace(order: Order, *, one_image: bool = False) -> ExportedProgram:
    """The shipped network as a program of ``torch.export``, for any batch, and any size if the description says so.

    Args:
        order: What to trace.
        one_image: A fixed batch of 1 instead.

    Raises:
        ExportError: torch cannot trace it.
    """
    description, network = order.description, order.checkpoint.build()
    assert isinstance(network, Network)
    # With an open size, an example large enough that no map of the network is a single pixel, and no two sides are one.
    side = 4 * network.feature_levels[-1].stride if description.any_size else description.preprocessing.image_size
    height, width = side, side + 8 * description.any_size
    batch, channels = 1 if one_image else 2, description.preprocessing.channels
    dynamic = {} if one_image else {0: Dim.DYNAMIC}
    if description.input == "uint8":
        example, sides = torch.zeros(batch, height, width, channels, dtype=torch.uint8), (1, 2)
    else:
        example, sides = torch.zeros(batch, channels, height, width), (2, 3)
    if description.any_size:
        dynamic |= dict.fromkeys(sides, Dim.DYNAMIC)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about itself
            return torch.export.export(Shipped(network, description), (example,), dynamic_shapes=(dynamic,))
    except Exception as error:  # torch has no base class for what tracing raises
        raise ExportError(
            f"torch cannot trace {description.architecture} ({str(error).strip().splitlines()[0]});"
            " try it with a fixed size, or file an issue."
        ) from error
