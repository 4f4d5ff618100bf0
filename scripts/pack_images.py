#!/usr/bin/env python3
"""Decode training images once, into one file of pixels and an index, without near copies of held-out images.

    scripts/pack_images.py CACHE --labelled DIR SHARE ... --unlabelled DIR SHARE ... --held-out DIR ...

SHARE is the share of a batch that ``PackedImages`` draws from the folder. A near copy is an image whose
difference hash, or that of its horizontal flip, differs from a held-out image's in at most 40 of 256 bits.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ghostnets.preprocessing import IMAGE_SUFFIXES, Pixels, as_array, decode, resize

LONGEST_SHORTER_SIDE = 224  # limit for packed images, pixels
SMALL_SIDE = 128  # images with a shorter side below are cropped less
COPY_DISTANCE = 40  # differing bits out of 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder of the result")
    share = {"nargs": 2, "metavar": ("DIR", "SHARE"), "action": "append", "default": []}
    parser.add_argument("--labelled", **share, help="one folder a class, and its share of a batch")
    parser.add_argument("--unlabelled", **share, help="any images, and their share of a batch")
    parser.add_argument("--held-out", nargs="+", type=Path, required=True, help="images that must not be trained on")
    pack(parser.parse_args())


def pack(options: argparse.Namespace) -> None:
    options.cache.mkdir(parents=True, exist_ok=True)
    held_out = np.concatenate([_hashes(decode(path)) for folder in options.held_out for path in find_images(folder)])
    held_out_signs = np.unpackbits(held_out, axis=1).astype(np.float32) * 2 - 1
    index: list[tuple[int, int, int, int, int]] = []  # offset, height, width, label, source
    shares = [float(share) for _, share in [*options.labelled, *options.unlabelled]]
    num_classes = offset = dropped = 0
    with (options.cache / "pixels.bin").open("wb") as file:
        for source, (folder, _) in enumerate([*options.labelled, *options.unlabelled]):
            paths, labels = find_images(Path(folder)), None
            if source < len(options.labelled):
                classes = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
                labels = [num_classes + classes.index(path.relative_to(folder).parts[0]) for path in paths]
                num_classes += len(classes)
            for position, path in enumerate(paths):
                image = decode(path)
                signs = np.unpackbits(_hashes(image), axis=1).astype(np.float32) * 2 - 1
                if (256 - (signs @ held_out_signs.T).max()) / 2 <= COPY_DISTANCE:
                    dropped += 1
                    continue
                side = min(LONGEST_SHORTER_SIDE, *image.size)
                pixels = as_array(resize(image, channels=3, shorter_side=side, interpolation="bicubic"))
                file.write(pixels.tobytes())
                index.append((offset, *pixels.shape[:2], -1 if labels is None else labels[position], source))
                offset += pixels.size
    np.savez(options.cache / "index.npz", index=np.array(index), shares=np.array(shares), num_classes=num_classes)
    print(f"{len(index)} images, {num_classes} classes; {dropped} near copies of held-out images dropped")


def find_images(folder: Path) -> list[Path]:
    """All image files in a folder and its subfolders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _hashes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """256-bit difference hashes of an image and its horizontal flip, packed: uint8 (2, 32)."""
    small = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.LANCZOS), dtype=np.int16)
    return np.stack([np.packbits(np.diff(x, axis=1) > 0) for x in (small, small[:, ::-1])])


class PackedImages:
    """Random crops of the images that ``pack`` wrote."""

    def __init__(self, cache: Path) -> None:
        with np.load(cache / "index.npz") as file:
            self.index, shares, self.num_classes = file["index"], file["shares"], int(file["num_classes"])
        self.data = np.memmap(cache / "pixels.bin", np.uint8, "r")
        self.labels, sources = self.index[:, 3], self.index[:, 4]  # label -1: none
        self.num_first = int((sources == 0).sum())  # images of the first labelled folder, which come first
        weights = shares[sources] / np.bincount(sources)[sources]
        self.cumulative = np.cumsum(weights / weights.sum())

    def pixels(self, number: int) -> Pixels:
        """The image, uint8 (H, W, 3)."""
        offset, height, width = self.index[number, :3]
        return np.asarray(self.data[offset : offset + height * width * 3]).reshape(height, width, 3)

    def draw(self, generator: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Numbers of random images, ascending; each folder's share is met to within one image (stratified sampling)."""
        points = (np.arange(count) + generator.random(count)) / count
        return np.searchsorted(self.cumulative, points).clip(max=len(self.index) - 1)

    def crops(self, generator: np.random.Generator, numbers: npt.NDArray[np.int64], size: int) -> Tensor:
        """A crop of each image, float32 (N, 3, size, size) in [0, 255].

        Each covers 20 to 100 % of its image (at least 50 % where the image is smaller than 128 pixels), is flipped with
        probability 1/2 and changed in contrast and brightness.
        """
        crops = np.stack([_random_crop(self.pixels(number), generator, size) for number in numbers])
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        mean = x.mean((1, 2, 3), keepdim=True)
        contrast, brightness = (
            torch.from_numpy(generator.uniform(1 - s, 1 + s, (len(x), 1, 1, 1)).astype(np.float32)) for s in (0.3, 0.25)
        )
        return ((x - mean) * contrast + mean * brightness).clamp_(0, 255)


def _random_crop(image: Pixels, generator: np.random.Generator, size: int) -> Pixels:
    height, width = image.shape[:2]
    area = height * width * generator.uniform(0.5 if min(height, width) < SMALL_SIDE else 0.2, 1)
    aspect = math.exp(generator.uniform(-0.29, 0.29))
    crop_width, crop_height = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
    left, top = generator.uniform(0, width - crop_width), generator.uniform(0, height - crop_height)
    x, y = int(left), int(top)
    part = Image.fromarray(image[y : math.ceil(top + crop_height), x : math.ceil(left + crop_width)])
    box = (left - x, top - y, min(part.width, left - x + crop_width), min(part.height, top - y + crop_height))
    crop = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return crop[:, ::-1] if generator.random() < 0.5 else crop


if __name__ == "__main__":
    main()
