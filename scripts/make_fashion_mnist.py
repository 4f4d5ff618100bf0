"""Create the embedded subset of Fashion-MNIST and the example images, reproducibly to the byte.

    python scripts/make_fashion_mnist.py /usr/share/datasets/fashion-mnist

The argument is a folder with the four ``*-ubyte.gz`` files, for instance from Debian's package dataset-fashion-mnist.
1,200 training and 200 test images of each class are selected with a fixed seed; the ten example images are test images
outside the 2,000.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets.data.fashion_mnist import CLASS_NAMES, read_idx

REPOSITORY = Path(__file__).parents[1]


def choose(labels: np.ndarray, per_class: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Select ``per_class`` images of each class in random order, and one further image of each class, as indices."""
    orders = [generator.permutation(np.flatnonzero(labels == label)) for label in range(len(CLASS_NAMES))]
    chosen = np.concatenate([order[:per_class] for order in orders])
    return generator.permutation(chosen), np.array([order[per_class] for order in orders])


def main(source: Path) -> None:
    generator = np.random.Generator(np.random.PCG64(20200331))
    arrays: dict[str, np.ndarray] = {}
    for split, prefix, per_class in [("train", "train", 1200), ("test", "t10k", 200)]:
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen, examples = choose(labels, per_class, generator)
        arrays |= {f"{split}_images": images[chosen], f"{split}_labels": labels[chosen]}
        if split == "test":
            for label, index in enumerate(examples):
                name = f"{CLASS_NAMES[label].replace(' ', '-')}.png"
                Image.fromarray(images[index]).save(REPOSITORY / "examples" / "fashion-mnist" / name, optimize=True)
    target = REPOSITORY / "ghostnets" / "data" / "embedded" / "fashion_mnist.npz"
    np.savez_compressed(target, allow_pickle=False, **arrays)
    print(f"{target.relative_to(REPOSITORY)}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
