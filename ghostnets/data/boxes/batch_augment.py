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
    """Augmentation of images and their packed boxes (``BoxFolder``) -> a batch at the input size and its packed boxes.

    Attributes:
        single: Augmentation of one image.
    """

    single: BoxAugmentation

    def augment(self, images: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: Pixels of each image, uint8 (C, H, W).
            labels: Packed boxes, float32 (B, G, 6).
            seeds: Seed of each image.

        Returns:
            Pixels, uint8 (B, C, S, S), and packed boxes, float32 (B, G', 6).
        """
        pixels, boxes = [], []
        side = self.single.image_size
        for image, rows, seed in zip(images, labels, seeds, strict=True):
            sample = self.single(image, _unpack_boxes(image, rows), seed)
            pixels.append(sample.pixels)
            found = sample.boxes.double().numpy()
            boxes.append(
                BoxAnnotations(
                    Path(), (side, side), found, sample.labels.numpy(), sample.is_crowd.numpy(), np.zeros(len(found))
                )
            )
        return torch.stack(pixels), torch.from_numpy(pack_boxes(boxes))


def _unpack_boxes(image: Tensor, rows: Tensor) -> BoxAnnotations:
    """Return the boxes of one image in pixels, without the padding rows."""
    height, width = image.shape[1:]
    values = rows[rows[:, 4] >= 0].double().numpy()
    boxes = values[:, :4] * np.array([width, height, width, height])
    labels, is_crowd = values[:, 4].astype(np.int64), values[:, 5] > 0
    return BoxAnnotations(Path(), (width, height), boxes, labels, is_crowd, np.zeros(len(values)))
