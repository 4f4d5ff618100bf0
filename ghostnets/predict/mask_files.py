"""Masks of segmented images as PNG files, and images with their masks drawn over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets.artefacts import SegmentedImage
from ghostnets.artefacts.masks import draw_indices
from ghostnets.files import write_atomically
from ghostnets.predict.box_pictures import QUALITY, target_path
from ghostnets.predict.inputs import Input, read_content_of
from ghostnets.preprocessing import class_color, decode

__all__ = ["MaskFiles", "MaskPictures"]

OPACITY = 0.5  # of a mask over its image


class MaskFiles:
    """Writes masks as PNG files with a palette into a folder, each under the path of its image.

    The value of a pixel is the index of its class.

    Args:
        folder: Folder to write into; created with the first mask.
        class_names: Class names in the order of the indices.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder, self.num_classes = folder, len(class_names)

    def write(self, source: Input, segmented: SegmentedImage) -> Path:
        """Write the mask of one image; return its path. Raises StorageError."""
        image = draw_indices(segmented.mask, self.num_classes)
        target = target_path(self.folder, source.name, ".png")
        with write_atomically(target) as temporary:
            image.save(temporary, "PNG")
        return target


class MaskPictures:
    """Writes images with the colours of their masks over them as JPEG files into a folder.

    Args:
        folder: Folder to write into; created with the first picture.
        class_names: Class names in the order of the indices.
        max_pixels: Maximum number of pixels of an image that is read.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], *, max_pixels: int) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        self.colors = np.array([class_color(label) for label in range(len(class_names))], np.uint8)

    def write(self, source: Input, segmented: SegmentedImage) -> Path:
        """Draw the mask of one image; return the path of the picture.

        Raises:
            ImageError: The image cannot be read.
            StorageError: The picture cannot be written.
        """
        image = decode(read_content_of(source), name=source.name, max_pixels=self.max_pixels).convert("RGB")
        mask = Image.fromarray(segmented.mask)
        if mask.size != image.size:  # a JPEG so large that it was decoded at reduced scale
            mask = mask.resize(image.size, Image.Resampling.NEAREST)
        drawn = Image.blend(image, Image.fromarray(self.colors[np.asarray(mask)]), OPACITY)
        target = target_path(self.folder, source.name, ".jpg")
        with write_atomically(target) as temporary:
            drawn.save(temporary, "JPEG", quality=QUALITY)
        return target
