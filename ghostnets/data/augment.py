"""What happens to training images at random.

Every choice is a function of a seed that belongs to one image in one epoch, never of what was drawn before: neither the
place where a run was resumed nor the number of processes that share a batch changes what the network sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from ghostnets.errors import DataError

__all__ = ["Augmentation", "derive_seed"]


@dataclass(frozen=True)
class Augmentation:
    """Training images, uint8 (C, H, W) each -> a batch, uint8 (N, C, image_size, image_size).

    One of two cuts comes first: images that have the input's size are shifted, all others are cropped.

    Attributes:
        image_size: Side of the input in pixels.
        shift: Move each image by up to so many pixels in each direction, which is a crop of the image padded by so many
            zeros; None for a crop of random size and shape, resized to the input
            (``torchvision.transforms.v2.RandomResizedCrop``, shapes of 3 : 4 to 4 : 3).
        min_scale: Smallest share of the area that such a crop keeps.
        flip: Mirror half of the images.
        randaugment: Number of operations of RandAugment (Cubuk et al., arXiv 1909.13719) for each image; 0 for none.
        randaugment_magnitude: Their strength, from 0 to 30, as torchvision counts.
        erasing: Share of the images in which a rectangle becomes grey (random erasing, Zhong et al., arXiv 1708.04896),
            with torchvision's sizes and shapes.
    """

    image_size: int
    shift: int | None
    min_scale: float = 0.35
    flip: bool = True
    randaugment: int = 0
    randaugment_magnitude: int = 9
    erasing: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every image as it is."""
        return self == Augmentation(self.image_size, shift=0, min_scale=self.min_scale, flip=False)

    def __call__(self, images: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """One seed for each image.

        Raises:
            DataError: With ``shift``, the images have different sizes.
        """
        if self.shift is None:
            batch = torch.stack([self._crop(image, seed) for image, seed in zip(images, seeds, strict=True)])
        else:
            batch = self._shift(_stack(images), seeds)
        if self.randaugment or self.erasing:
            batch = torch.stack([self._disturb(image, seed) for image, seed in zip(batch, seeds, strict=True)])
        return batch

    def _shift(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """All images at once: their seeds are the randomness."""
        assert self.shift is not None
        n, c, h, w = images.shape
        seed = torch.tensor(seeds)
        if self.shift:
            places = 2 * self.shift + 1
            top, left = (seed >> 1) % places, (seed >> 20) % places
            rows = (top[:, None] + torch.arange(h))[:, None, :, None]  # (N, 1, H, 1)
            columns = (left[:, None] + torch.arange(w))[:, None, None, :]  # (N, 1, 1, W)
            padded = torch.nn.functional.pad(images, (self.shift,) * 4)
            images = padded[torch.arange(n)[:, None, None, None], torch.arange(c)[:, None, None], rows, columns]
        if self.flip:
            mirrored = seed % 2 == 1
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def _crop(self, image: Tensor, seed: int) -> Tensor:
        transform = v2.RandomResizedCrop(self.image_size, scale=(self.min_scale, 1.0), antialias=True)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            image = transform(image)
            return tvf.horizontal_flip(image) if self.flip and torch.rand(()) < 0.5 else image

    def _disturb(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, 1))  # not the choices of the crop once more
            if self.randaugment:
                image = v2.RandAugment(self.randaugment, self.randaugment_magnitude)(image)
            if self.erasing:
                image = v2.RandomErasing(self.erasing, value=GREY)(image)
            return image


GREY = 114  # the mean of ImageNet's pixels, which normalisation turns into about 0


def derive_seed(*numbers: int) -> int:
    """One seed from several numbers, so that neighbours do not give related streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    try:
        return torch.stack(list(images))
    except RuntimeError as error:
        raise DataError("the images have different sizes; choose an augmentation that resizes them.") from error
