"""Train a segmentation network on the aerial photographs of Dubai, with two of eight tiles held out, and measure it.

    python benchmarks/segmentation.py --data aerial --work work --seeds 0 1 2 -- --epochs 400 --time-limit 15m

The data set ("Semantic segmentation of aerial imagery", Humans in the Loop) is a folder with images/tile_N_*.jpg and
masks/tile_N_*.png. Photographs of one tile are neighbours, so tiles 7 and 8 are for testing alone. The photographs are
cut into pieces of some 400 pixels, so that all have about the same resolution in the network's square input, and the
figures are those of all pixels of the pieces at their own size (``training_seeds.py``).
"""

import argparse
from pathlib import Path

from PIL import Image
from training_seeds import measure_seeds

HELD_OUT = ("7", "8")
PIECE = 400  # pixels of a side, about
OPTIONS = ("--task", "segment", "--flip", "both", "--val-share", "0.1")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images and masks")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pieces and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("options", nargs="*", help="options of ghostnets train, after --")
    options = parser.parse_args()
    pieces = prepare(options.data, options.work / "pieces")
    measure_seeds(pieces, options.work, options.seeds, [*OPTIONS, *options.options])


if __name__ == "__main__":
    main()
