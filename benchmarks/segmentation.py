"""Train a segmentation network on the aerial photographs of Dubai, with two of eight tiles held out, and measure it.

    python benchmarks/segmentation.py --data aerial --work work [--model ghostseg_100] [--epochs 150] [--threads 1]
    python benchmarks/segmentation.py --data aerial --work work --checkpoint work/run/best.safetensors

The data set ("Semantic segmentation of aerial imagery", Humans in the Loop) is a folder with images/tile_N_*.jpg and
masks/tile_N_*.png. Photographs of one tile are neighbours, so tiles 7 and 8 are for testing alone. The photographs are
cut into pieces of some 400 pixels, so that all have about the same resolution in the network's square input, and the
metrics are those of all pixels of the pieces at their own size.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ghostnets.artefacts import load_segmenter
from ghostnets.data.masks import open_masks
from ghostnets.measure import PixelConfusion, processor_name
from ghostnets.preprocessing import decode_values
from ghostnets.train import train_model

HELD_OUT = ("7", "8")
PIECE = 400  # pixels of a side, about
CLASSES = """name,color
land,#8429F6
water,#E2A929
building,#3C1098
vegetation,#FEDD3A
road,#6EC1E4
unlabelled,#9B9B9B
unlabelled,#000000
"""


def prepare(data: Path, target: Path) -> Path:
    """Write the pieces of all photographs and masks, the table of classes, and the list of the test images."""
    if (target / "test.txt").exists():
        return target
    held_out = []
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for image in sorted((data / "images").glob("tile_*.jpg")):
        for folder, path in (("images", image), ("masks", data / "masks" / f"{image.stem}.png")):
            whole = Image.open(path).convert("RGB")
            columns, rows = (max(1, round(side / PIECE)) for side in whole.size)
            for row in range(rows):
                for column in range(columns):
                    left, right = (whole.width * (column + step) // columns for step in (0, 1))
                    top, bottom = (whole.height * (row + step) // rows for step in (0, 1))
                    whole.crop((left, top, right, bottom)).save(target / folder / f"{image.stem}_{row}{column}.png")
                    if folder == "images" and image.stem.split("_")[1] in HELD_OUT:
                        held_out.append(f"{image.stem}_{row}{column}")
    (target / "classes.csv").write_text(CLASSES)
    (target / "test.txt").write_text("\n".join(held_out) + "\n")
    return target


def measure(checkpoint: Path, data: Path, threads: int) -> tuple[PixelConfusion, tuple[str, ...]]:
    """Confusion of all pixels of the test images at their own size, and the names of the classes."""
    source, segmenter = open_masks(data), load_segmenter(checkpoint, threads=threads)
    classes = len(source.table.names)
    confusion = PixelConfusion(np.zeros((classes, classes), np.int64))
    for pair in source.splits["test"]:
        truth = source.table.apply(decode_values(pair.mask))
        confusion += PixelConfusion.count(truth, segmenter(pair.image).mask, classes)
    return confusion, source.table.names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images and masks")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pieces and the run")
    parser.add_argument("--checkpoint", type=Path, help="measure this checkpoint instead of training")
    parser.add_argument("--model", default="ghostseg_100")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pieces, before = prepare(options.data, options.work / "pieces"), time.process_time()
    checkpoint = options.checkpoint
    if checkpoint is None:
        result = train_model(
            pieces,
            task="segment",
            folder=options.work / "run",
            model=options.model,
            epochs=options.epochs,
            seed=options.seed,
            flip="both",
            val_share=0.1,
        )
        checkpoint = result.checkpoint
    minutes = (time.process_time() - before) / 60
    confusion, names = measure(checkpoint, pieces, options.threads)
    ious = dict(zip(names, confusion.ious, strict=True))
    print(f"{processor_name()}, {options.threads} thread(s), torch {torch.__version__}; {minutes:.1f} CPU minutes")
    print(f"pixel accuracy {confusion.pixel_accuracy:.3f}, mIoU {confusion.mean_iou:.3f}")
    print("IoU: " + ", ".join(f"{name} {iou:.3f}" for name, iou in ious.items() if iou is not None))
    print(json.dumps({"pixel_accuracy": confusion.pixel_accuracy, "mean_iou": confusion.mean_iou, "ious": ious}))


if __name__ == "__main__":
    main()
