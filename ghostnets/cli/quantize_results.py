"""What a network finds in images, and how much of it two networks share: classes, objects, or classes of pixels."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ghostnets.artefacts import Model, decode_predictions, suppress
from ghostnets.artefacts.checkpoint import describe_task
from ghostnets.checkpoints import Checkpoint
from ghostnets.cli.compression import BATCH
from ghostnets.export.verify_boxes import count_objects

__all__ = ["NetworkResults"]

Array = npt.NDArray[np.float32]


class NetworkResults:
    """Results of a checkpoint's network, or of an int8 form of it, for a batch of outputs.

    A result is the class of each image (N,), the objects of each image that ``suppress`` selects, or the class of each
    pixel (N, H, W).

    Args:
        checkpoint: Checkpoint of the original.
        network: Its network.

    Attributes:
        task: Task of the network, one of ``TASKS``.
        meaning: What ``count_same`` counts, for a table.
        float_layers: Layers that every int8 form keeps in float32, as exports do.
    """

    def __init__(self, checkpoint: Checkpoint, network: nn.Module) -> None:
        self.task, self.side = checkpoint.task, checkpoint.preprocessing.image_size
        self.fields = describe_task(checkpoint.task, network)
        self.meaning = {
            "classify": "same class as the original",
            "detect": "objects that the original finds too",
            "segment": "pixels of the same class as in the original",
        }[self.task]
        self.float_layers: tuple[str, ...] = () if self.task == "classify" else network.classifier_names  # type: ignore[assignment]

    def of_outputs(self, outputs: Array) -> Any:
        """Return the result of a batch of outputs: logits, predictions, or logits of pixels."""
        if self.task != "detect":
            return outputs.argmax(1).astype(np.uint8 if self.task == "segment" else np.int64)
        decoded = decode_predictions(outputs, self.side, self.fields["strides"], bins=self.fields["bins"])
        return [suppress(*each) for each in zip(*decoded, strict=True)]

    @torch.no_grad()
    def of_network(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Any:
        """Return the result of a network in torch for normalised images (N, C, H, W)."""
        return self._joined(self.of_outputs(network(x).numpy()) for x in images.split(BATCH))

    def of_file(self, model: Model, pixels: npt.NDArray[np.uint8]) -> Any:
        """Return the result of an opened file for images, uint8 (N, H, W, C)."""
        batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
        return self._joined(self.of_outputs(model.scores(batch)) for batch in batches)

    def count_same(self, got: Any, expected: Any) -> tuple[int, int]:
        """Return how many images, objects or pixels two results share, and how many there are."""
        if self.task == "detect":
            return count_objects(got, expected)
        return int((got == expected).sum()), int(expected.size)

    def _joined(self, parts: Iterable[Any]) -> Any:
        if self.task == "detect":
            return [one for part in parts for one in part]
        return np.concatenate(list(parts))
