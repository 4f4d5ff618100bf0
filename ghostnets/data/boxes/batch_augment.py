"""Random augmentation of a batch of images with boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ghostnets.data.boxes.annotations import BoxAnnotations
from ghostnets.data.boxes.augment import BoxAugmentation
from ghostnets.data.boxes.folder import pack_boxes

__all__ = ["BoxBatchAugmentation"]


@dataclass(frozen=True)
class BoxBatchAugmentation:
    """Images and their packed boxes (``BoxFolder``) -> a batch of the input's size, and its packed boxes.

    Attributes:
        single: Augmentation of one image.
    """

    single: BoxAugmentation

    def augment(self, images: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: uint8 (C, H, W) each.
            labels: float32 (B, G, 6).
            seeds: One for each image.

        Returns:
            uint8 (B, C, S, S) and float32 (B, G', 6).
        """
        pixels, boxes = [], []
        side = self.single.image_size
        for image, rows, seed in zip(images, labels, seeds, strict=True):
            sample = self.single(image, _annotations(image, rows), seed)
            pixels.append(sample.pixels)
            found = sample.boxes.double().numpy()
            boxes.append(
                BoxAnnotations(
                    Path(), (side, side), found, sample.labels.numpy(), sample.is_crowd.numpy(), np.zeros(len(found))
                )
            )
        return torch.stack(pixels), torch.from_numpy(pack_boxes(boxes))


def _annotations(image: Tensor, rows: Tensor) -> BoxAnnotations:
    """The boxes of one image in pixels, without the empty rows."""
    height, width = image.shape[1:]
    values = rows[rows[:, 4] >= 0].double().numpy()
    boxes = values[:, :4] * np.array([width, height, width, height])
    labels, is_crowd = values[:, 4].astype(np.int64), values[:, 5] > 0
    return BoxAnnotations(Path(), (width, height), boxes, labels, is_crowd, np.zeros(len(values)))
