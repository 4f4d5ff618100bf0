"""Random augmentation of training images.

Every choice is a function of a seed that belongs to one image in one epoch, never of earlier draws: neither the step at
which a run was resumed nor the number of processes that share a batch changes what the network sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from ghostnets.data.batch_transforms import draw_uniform, jitter_colors, rotate
from ghostnets.errors import DataError

__all__ = ["Augmentation", "derive_seed"]

GRAY = 114  # the mean of ImageNet's pixels, about 0 after normalisation


@dataclass(frozen=True)
class Augmentation:
    """Training images, uint8 (C, H, W) each -> a batch, uint8 (N, C, image_size, image_size).

    Images of the input's size are shifted; all others are cropped and resized.

    Attributes:
        image_size: Side of the input in pixels.
        shift: Largest shift in pixels in each direction (a random crop of the zero-padded image); None for a crop of
            random size and aspect ratio, resized to the input (``torchvision.transforms.v2.RandomResizedCrop``, aspect
            ratios 3 : 4 to 4 : 3).
        min_scale: Smallest share of the area that such a crop keeps.
        flip: Flip half of the images horizontally.
        randaugment: Number of RandAugment operations per image (Cubuk et al., arXiv 1909.13719); 0 for none.
        randaugment_magnitude: Their strength, from 0 to 30, on torchvision's scale.
        erasing: Share of the images with one rectangle set to gray (random erasing, Zhong et al., arXiv 1708.04896),
            with torchvision's sizes and aspect ratios.
        vertical_flip: Flip half of the images vertically.
        rotate: Largest rotation in degrees in either direction; what lies outside the image is reflected.
        color_jitter: Largest relative change of brightness, contrast and saturation.
    """

    image_size: int
    shift: int | None
    min_scale: float = 0.35
    flip: bool = True
    randaugment: int = 0
    randaugment_magnitude: int = 9
    erasing: float = 0.0
    vertical_flip: bool = False
    rotate: float = 0.0
    color_jitter: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether every image is left unchanged."""
        return self == Augmentation(self.image_size, shift=0, min_scale=self.min_scale, flip=False)

    def __call__(self, images: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """Augment and stack images, with one seed per image.

        Raises:
            DataError: With ``shift``, the images have different sizes.
        """
        if self.shift is None:
            batch = torch.stack([self._crop(image, seed) for image, seed in zip(images, seeds, strict=True)])
        else:
            batch = self._shift(_stack(images), seeds)
        batch = self._transform(batch, seeds)
        if self.randaugment or self.erasing:
            batch = torch.stack(
                [self._randaugment_and_erase(image, seed) for image, seed in zip(batch, seeds, strict=True)]
            )
        return batch

    def _transform(self, batch: Tensor, seeds: Sequence[int]) -> Tensor:
        """Flip vertically, rotate and jitter all images at once."""
        if self.vertical_flip:
            flipped = draw_uniform(seeds, 0) < 0.5
            batch = torch.where(flipped[:, None, None, None], batch.flip(2), batch)
        if self.rotate:
            batch = rotate(batch, (2 * draw_uniform(seeds, 1) - 1) * self.rotate)
        if self.color_jitter:
            draws = torch.stack([draw_uniform(seeds, stream) for stream in (2, 3, 4)], 1)
            batch = jitter_colors(batch, 1 + (2 * draws - 1) * self.color_jitter)
        return batch

    def _shift(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Shift and flip all images at once; the bits of their seeds are the random numbers."""
        assert self.shift is not None
        n, c, h, w = images.shape
        seed = torch.tensor(seeds)
        if self.shift:
            offsets = 2 * self.shift + 1
            top, left = (seed >> 1) % offsets, (seed >> 20) % offsets
            rows = (top[:, None] + torch.arange(h))[:, None, :, None]  # (N, 1, H, 1)
            columns = (left[:, None] + torch.arange(w))[:, None, None, :]  # (N, 1, 1, W)
            padded = torch.nn.functional.pad(images, (self.shift,) * 4)
            images = padded[torch.arange(n)[:, None, None, None], torch.arange(c)[:, None, None], rows, columns]
        if self.flip:
            flipped = seed % 2 == 1
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        return images

    def _crop(self, image: Tensor, seed: int) -> Tensor:
        transform = v2.RandomResizedCrop(self.image_size, scale=(self.min_scale, 1.0), antialias=True)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            image = transform(image)
            return tvf.horizontal_flip(image) if self.flip and torch.rand(()) < 0.5 else image

    def _randaugment_and_erase(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 1))  # a stream independent of the crop's
            if self.randaugment:
                image = v2.RandAugment(self.randaugment, self.randaugment_magnitude)(image)
            if self.erasing:
                image = v2.RandomErasing(self.erasing, value=GRAY)(image)
            return image


def derive_seed(*numbers: int) -> int:
    """Derive one seed from several numbers, such that neighbouring numbers give independent streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    try:
        return torch.stack(list(images))
    except RuntimeError as error:
        raise DataError("the images have different sizes; choose an augmentation that resizes them.") from error
