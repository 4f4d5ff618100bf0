"""Small data sets of labelled boxes and masks."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_boxes(root: Path, splits: dict[str, list[list[tuple[int, float, float, float, float]]]]) -> Path:
    """A YOLO data set: for each split the boxes of each image, as class and center, width and height in [0, 1]."""
    generator = np.random.default_rng(0)
    for split, images in splits.items():
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for index, rows in enumerate(images):
            pixels = generator.integers(0, 255, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / "images" / f"{index}.png")
            text = "\n".join(" ".join(map(str, row)) for row in rows)
            (root / split / "labels" / f"{index}.txt").write_text(text)
    places = "".join(f"{split}: {split}/images\n" for split in splits)
    (root / "data.yaml").write_text(f"{places}nc: 3\nnames: [fish, shark, ray]\n")
    return root


def write_masks(root: Path, splits: dict[str, int]) -> Path:
    """Masks for the number of images of each split.

    A dark and a bright class, ignored pixels, and a class without a pixel; the first mask of each split has no labelled
    pixel.
    """
    generator = np.random.default_rng(0)
    for split, count in splits.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for index in range(count):
            mask = (np.arange(48)[None] > generator.integers(12, 36)).repeat(40, axis=0).astype(np.uint8)
            pixels = np.where(mask[..., None], 220, 30).astype(np.uint8).repeat(3, axis=2)
            mask[:2] = 255
            if index == 0:
                mask[:] = 255
            Image.fromarray(pixels).save(root / split / "images" / f"{index}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
    (root / "classes.txt").write_text("dark\nbright\nstriped\n")
    return root
