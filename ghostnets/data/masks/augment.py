"""Random augmentation of images with masks, by torchvision's transforms."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghostnets.data.batch_transforms import draw_uniform, rotate

__all__ = ["MaskAugmentation"]


@dataclass(frozen=True)
class MaskAugmentation:
    """Images with their masks, uint8 (C + 1, H, W) each (``MaskFolder``) -> a batch of the input's size, and its masks.

    Images are resized bilinearly, masks by the pixels nearest to the centres. The result is determined by the seeds.

    Attributes:
        image_size: Side S of the input in pixels.
        min_scale: Smallest share of the area that a random crop keeps (``RandomResizedCrop``, aspect ratios 3 : 4 to
            4 : 3).
        horizontal_flip, vertical_flip: Flip half of the images.
        color: Largest relative change of brightness, contrast and saturation.
        rotate: Largest rotation in degrees in either direction; pixels outside the image, and their labels, are filled
            by reflection.
    """

    image_size: int
    min_scale: float = 0.25
    horizontal_flip: bool = True
    vertical_flip: bool = False
    color: float = 0.0
    rotate: float = 0.0

    def augment(self, images: Sequence[Tensor], labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: uint8 (C + 1, H, W) each.
            labels: Not read: the masks are in the images.
            seeds: One for each image.

        Returns:
            uint8 (B, C, S, S), and the masks, uint8 (B, S, S).
        """
        from torchvision import tv_tensors

        transform, (crop, crop_mask) = self._transform(), self._crops()
        pixels, masks = [], []
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            for image, seed in zip(images, seeds, strict=True):
                torch.default_generator.manual_seed(seed)
                state = torch.get_rng_state()
                cropped = crop(tv_tensors.Image(image[:-1]))
                torch.set_rng_state(state)  # the same crop
                mask = crop_mask(tv_tensors.Image(image[-1:]))
                sample = transform(cropped, tv_tensors.Mask(mask[0]))
                pixels.append(sample[0].as_subclass(Tensor))
                masks.append(sample[1].as_subclass(Tensor))
        batch, labelled = torch.stack(pixels), torch.stack(masks)
        if self.rotate:
            degrees = (2 * draw_uniform(seeds, 0) - 1) * self.rotate
            batch = rotate(batch, degrees)
            labelled = rotate(labelled[:, None], degrees, mode="nearest")[:, 0]
        return batch, labelled

    def _crops(self) -> tuple[nn.Module, nn.Module]:
        """Random crops of images and of masks, which torchvision would resize by the pixels' corners, not centres."""
        from torchvision.transforms import v2

        size, scale = [self.image_size, self.image_size], (self.min_scale, 1.0)
        exact = v2.InterpolationMode.NEAREST_EXACT
        return (
            v2.RandomResizedCrop(size, scale=scale, antialias=True),
            v2.RandomResizedCrop(size, scale=scale, interpolation=exact),
        )

    def _transform(self) -> nn.Module:
        from torchvision.transforms import v2

        transform: nn.Module = v2.Compose(
            [
                *([v2.RandomHorizontalFlip()] if self.horizontal_flip else []),
                *([v2.RandomVerticalFlip()] if self.vertical_flip else []),
                v2.ColorJitter(brightness=self.color, contrast=self.color, saturation=self.color),
            ]
        )
        return transform
