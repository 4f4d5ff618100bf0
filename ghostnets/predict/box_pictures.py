"""Images with the boxes and names of found objects, drawn with Pillow and its built-in font."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ghostnets.artefacts import DetectedObjects
from ghostnets.files import write_atomically
from ghostnets.predict.inputs import Input, read_content_of
from ghostnets.preprocessing import decode

__all__ = ["QUALITY", "BoxPictures", "target_path"]

# Colours that stay distinct for colour-blind readers (Okabe and Ito); classes beyond the eighth repeat them.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000")
LIGHT = ("#e69f00", "#56b4e9", "#f0e442")  # with black text
QUALITY = 90


class BoxPictures:
    """Writes images with boxes as JPEG files into a folder, each under the path of its image.

    Args:
        folder: Folder to write into; created with the first picture.
        class_names: Class names in the order of the labels.
        max_pixels: Maximum number of pixels of an image that is read.

    Attributes:
        numbered: Class names that the font cannot write; pictures show their numbers, as in ``no. 3``.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], *, max_pixels: int) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        font = ImageFont.load_default(16)
        self.numbered = [name for name in class_names if not _can_write(font, name)]
        self.names = [
            f"no. {number}" if name in self.numbered else name for number, name in enumerate(class_names, start=1)
        ]

    def write(self, source: Input, found: DetectedObjects) -> Path:
        """Draw the objects of one image; return the path of the picture.

        Raises:
            ImageError: The image cannot be read.
            StorageError: The picture cannot be written.
        """
        image = decode(read_content_of(source), name=source.name, max_pixels=self.max_pixels).convert("RGB")
        self.draw(image, _scaled(found, image.size))
        target = target_path(self.folder, source.name, ".jpg")
        with write_atomically(target) as temporary:
            image.save(temporary, "JPEG", quality=QUALITY)
        return target

    def draw(self, image: Image.Image, found: DetectedObjects) -> None:
        """Draw boxes, names and scores into an RGB image, the highest score on top."""
        draw, side = ImageDraw.Draw(image), max(image.size)
        line, font = max(2, side // 400), ImageFont.load_default(max(11, side // 50))
        objects = list(zip(found.boxes.tolist(), found.labels, found.scores, strict=True))
        for box, label, score in reversed(objects):
            color = COLORS[label % len(COLORS)]
            draw.rectangle(box, outline=color, width=line)
            text = f"{self.names[label]} {score:.0%}"
            _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
            width, height = right + 2 * line, bottom + line
            x = max(0, min(box[0], image.width - width))
            y = box[1] - height if box[1] >= height else box[1]
            draw.rectangle((x, y, x + width, y + height), fill=color)
            draw.text((x + line, y), text, fill="black" if color in LIGHT else "white", font=font)


def target_path(folder: Path, name: str, suffix: str) -> Path:
    """Path in a folder for a picture of the image of a name: its path, with the suffix appended if it has another."""
    parts = [part for part in Path(os.path.normpath(name)).parts if part not in (Path(name).anchor,)]
    # On Windows a member of a tar can be named "C:NAME", which is on another drive.
    target = folder.joinpath(*("_" if part == ".." or Path(part).drive else part for part in parts))
    own = target.suffix.lower().replace(".jpeg", ".jpg")
    return target if own == suffix else target.with_name(f"{target.name}{suffix}")


def _scaled(found: DetectedObjects, size: tuple[int, int]) -> DetectedObjects:
    """The objects with boxes in pixels of an image that was decoded at another size."""
    if size == found.size:
        return found
    x, y = (own / original for own, original in zip(size, found.size, strict=True))
    return replace(found, size=size, boxes=found.boxes * np.array([x, y, x, y], np.float32))


def _can_write(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> bool:
    """Return whether a font has all characters of a text; missing ones look like one that no font has."""
    missing = bytes(font.getmask("\U0010ffff"))
    return text.isprintable() and all(bytes(font.getmask(c)) != missing for c in text if c != " ")
