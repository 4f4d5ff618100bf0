"""Random augmentation of training images.

Every random choice depends only on a seed per image and epoch, never on earlier draws: neither the step at which a run
was resumed nor the number of processes that share a batch changes the augmented images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from ghostnets.data.batch_transforms import draw_uniform, jitter_colors, rotate
from ghostnets.errors import DataError

__all__ = ["Augmentation", "derive_seed"]

GRAY = 114  # the mean of ImageNet's pixels, about 0 after normalisation
RATIOS = (3 / 4, 4 / 3)  # range of width / height of a crop
LOG_RATIOS = torch.tensor(RATIOS).log().tolist()  # in float32, as torchvision


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
        rotate: Largest rotation in degrees in either direction; pixels outside the image are filled by reflection.
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
        batch = self._crop(images, seeds) if self.shift is None else self._shift(_stack(images), seeds)
        batch = self._transform(batch, seeds)
        return self._randaugment_and_erase(batch, seeds) if self.randaugment or self.erasing else batch

    def augment(self, images: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Augment and stack images; their labels stay."""
        return self(images, seeds), labels

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
        seed = np.array(seeds, dtype=np.int64)
        if self.shift:
            offsets = 2 * self.shift + 1
            padded = np.pad(images.numpy(), ((0, 0), (0, 0), (self.shift,) * 2, (self.shift,) * 2))
            windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))  # (N, C, offsets, offsets, H, W)
            moved = windows[np.arange(len(seed)), :, (seed >> 1) % offsets, (seed >> 20) % offsets]
            images = torch.from_numpy(moved)
        return _flip(images, torch.from_numpy(seed % 2 == 1)) if self.flip else images

    def _crop(self, images: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
        """Crop and resize as ``RandomResizedCrop`` does after ``torch.manual_seed(seed)``, then flip."""
        from torchvision.transforms.v2.functional import resize_image

        generator = torch.Generator()
        crops, flipped = [], []
        for image, seed in zip(images, seeds, strict=True):
            generator.manual_seed(seed)
            top, left, height, width = _draw_crop(image.shape[1], image.shape[2], self.min_scale, generator)
            crop = image[:, top : top + height, left : left + width]
            crops.append(resize_image(crop, [self.image_size, self.image_size]))
            flipped.append(self.flip and bool(torch.rand((), generator=generator) < 0.5))
        return _flip(torch.stack(crops), torch.tensor(flipped))

    def _randaugment_and_erase(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        from torchvision.transforms import v2

        transforms: list[nn.Module] = []
        if self.randaugment:
            transforms.append(v2.RandAugment(self.randaugment, self.randaugment_magnitude))
        if self.erasing:
            transforms.append(v2.RandomErasing(self.erasing, value=GRAY))
        augmented = []
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            for image, seed in zip(images, seeds, strict=True):
                torch.default_generator.manual_seed(derive_seed(seed, 1))  # a stream independent of the crop's
                for transform in transforms:
                    image = transform(image)
                augmented.append(image)
        return torch.stack(augmented)


def _draw_crop(height: int, width: int, min_scale: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop, as ``RandomResizedCrop.make_params`` of torchvision draws them."""
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(min_scale, 1.0, generator=generator).item()
        ratio = torch.empty(1).uniform_(*LOG_RATIOS, generator=generator).exp_().item()
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = torch.randint(0, height - crop_height + 1, (1,), generator=generator).item()
            left = torch.randint(0, width - crop_width + 1, (1,), generator=generator).item()
            return int(top), int(left), crop_height, crop_width
    # No crop of an allowed ratio was found: the central one, as large as possible.
    crop_height = min(height, round(width / RATIOS[0]))
    crop_width = min(width, round(height * RATIOS[1]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Flip the images (N, C, H, W) horizontally for which ``flipped``, (N,), is true."""
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def derive_seed(*numbers: int) -> int:
    """Derive one seed from several numbers, such that neighbouring numbers give independent streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    try:
        return torch.stack(list(images))
    except RuntimeError as error:
        raise DataError("the images have different sizes; choose an augmentation that resizes them.") from error
