"""Random augmentation of images with boxes, by torchvision's transforms."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ghostnets.data.boxes.annotations import BoxAnnotations

__all__ = ["BoxAugmentation", "BoxSample"]

MIN_SIDE = 2.0  # pixels; a smaller box shows too little of its object


class BoxSample(NamedTuple):
    """Augmented image at the input size, with its boxes."""

    pixels: Tensor  # uint8 (C, S, S)
    boxes: Tensor  # float32 (G, 4), x_min, y_min, x_max, y_max in pixels
    labels: Tensor  # int64 (G,)
    is_crowd: Tensor  # bool (G,)


@dataclass(frozen=True)
class BoxAugmentation:
    """Augmentation of an image, uint8 (C, H, W), and its boxes -> a ``BoxSample``, stretched to the input size.

    Boxes are transformed with the pixels. A box is removed if its center is cropped away or a side is shorter than 2
    pixels in the result. The seed determines the result.

    Attributes:
        image_size: Side S of the input in pixels.
        crop: Whether to crop at random, so that some box has an IoU of at least 0, 0.1, ..., 0.9 with the crop, or not
            at all (``RandomIoUCrop``; Liu et al., SSD, arXiv 1512.02325).
        zoom_out: Maximum side of the gray canvas on which half of the images are placed, in units of the image's side;
            1 to disable.
        flip: Whether to flip half of the images horizontally.
        color: Whether to change brightness, contrast, saturation and hue at random (``RandomPhotometricDistort``).
    """

    image_size: int
    crop: bool = True
    zoom_out: float = 1.0
    flip: bool = True
    color: bool = True

    def __call__(self, image: Tensor, annotations: BoxAnnotations, seed: int) -> BoxSample:
        """Augment one image; the state of torch's global generator is restored.

        Args:
            image: Pixels of the upright image, uint8 (C, H, W).
            annotations: Boxes of the image.
            seed: Seed of all random choices, for example from ``derive_seed``.
        """
        from torchvision import tv_tensors

        height, width = image.shape[1:]
        boxes = torch.from_numpy(annotations.boxes).float()
        sample = (
            tv_tensors.Image(image),
            tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            torch.from_numpy(annotations.labels),
            torch.from_numpy(annotations.is_crowd),
        )
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(seed)
            pixels, found, labels, is_crowd = self._transform()(*sample)
        return BoxSample(pixels.as_subclass(Tensor), found.as_subclass(Tensor), labels, is_crowd)

    def _transform(self) -> nn.Module:
        from torchvision.transforms import v2

        size = [self.image_size, self.image_size]
        transform: nn.Module = v2.Compose(
            [
                *([v2.RandomPhotometricDistort()] if self.color else []),
                *([v2.RandomZoomOut(fill=114, side_range=(1.0, self.zoom_out))] if self.zoom_out > 1 else []),
                *([v2.RandomIoUCrop()] if self.crop else []),
                *([v2.RandomHorizontalFlip()] if self.flip else []),
                v2.Resize(size, antialias=True),
                v2.SanitizeBoundingBoxes(min_size=MIN_SIDE, labels_getter=lambda inputs: (inputs[2], inputs[3])),
            ]
        )
        return transform
