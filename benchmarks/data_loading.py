"""Cost of loading images during training.

Images/s of training with loading, against images/s of the same step on one batch in memory. The two alternate; a ratio
of 1 means that loading costs nothing.

    python benchmarks/data_loading.py                  the embedded images
    python benchmarks/data_loading.py FOLDER           a folder of photographs
    python benchmarks/data_loading.py FOLDER --files   the same, decoded on each access, as data sets above 2 GiB
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional as F

from ghostnets.data import Augmentation, Batch, DataSpec, ImageDataset, TrainingBatches, datasets
from ghostnets.measure import processor_name
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import RECIPES, default_recipe
from ghostnets.train.fused import fused_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="fashion-mnist")
    parser.add_argument("--files", action="store_true", help="cache nothing in memory")
    parser.add_argument("--steps", type=int, default=20, help="steps per block")
    parser.add_argument("--blocks", type=int, default=5, help="blocks of each kind, alternating")
    options = parser.parse_args()
    if options.files:
        datasets.CACHE_BYTES = 0

    source = DataSpec(options.data).open()
    recipe = RECIPES[default_recipe(source.typical_size, {})]
    is_small = source.typical_size <= 64
    preprocessing = Preprocessing.standard(source.typical_size if is_small else 224, source.channels)
    images = source.load(preprocessing).train
    augmentation = Augmentation(
        preprocessing.image_size,
        recipe.shift if is_small else None,
        recipe.min_scale,
        recipe.flip in ("horizontal", "both"),
    )
    model = create_model(
        recipe.model, num_classes=len(source.class_names), in_chans=source.channels, small_input=is_small
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with fused_training():  # as ghostnets train
            F.cross_entropy(model(preprocessing.normalize(batch.pixels)), batch.labels).backward()
        optimizer.step()

    batches = endless(images, augmentation, recipe.batch_size)
    resident = next(batches)
    for _ in range(3):
        step(resident)
    loaded, ready = [], []
    for _ in range(options.blocks):
        loaded.append(
            rate(lambda: [step(batch) for batch in islice(batches, options.steps)], options.steps, recipe.batch_size)
        )
        ready.append(rate(lambda: [step(resident) for _ in range(options.steps)], options.steps, recipe.batch_size))
    ratios = [a / b for a, b in zip(loaded, ready, strict=True)]
    where = "files" if options.files else "memory"
    print(f"{recipe.model} on {Path(options.data).name} ({len(images)} images from {where}), batch {recipe.batch_size}")
    print(f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, values in [("with loading", loaded), ("resident batch", ready)]:
        print(f"{name:<15} {statistics.median(values):7.1f} images/s  ({min(values):.1f} to {max(values):.1f})")
    print(f"ratio           {statistics.median(ratios):7.3f}           ({min(ratios):.3f} to {max(ratios):.3f})")


def endless(images: ImageDataset, augmentation: Augmentation, batch_size: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from TrainingBatches(images, augmentation, batch_size=batch_size, seed=0, epoch=epoch).stream()
        epoch += 1


def rate(work: Callable[[], object], steps: int, batch_size: int) -> float:
    before = time.perf_counter()
    work()
    return steps * batch_size / (time.perf_counter() - before)


if __name__ == "__main__":
    main()
