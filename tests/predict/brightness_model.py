"""A classifier of brightness with known outputs, so that no test depends on weights."""

from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets.artefacts import Classifier, Description, Model
from ghostnets.preprocessing import Preprocessing


class BrightnessModel(Model):
    """Three classes: dark, medium, light. The features are the brightness and its complement."""

    def _run(self, x, features):
        mean = x.mean((1, 2, 3), dtype=np.float32)[:, None] / 255
        return (-8 * np.abs(mean - np.array([0, 0.5, 1], np.float32)), np.concatenate([mean, 1 - mean], 1))


def brightness_classifier() -> Classifier:
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3)
    description = Description("none", {}, ("dark", "medium", "light"), preprocessing, has_features=True)
    return Classifier(BrightnessModel(Path("brightness.test"), description, "numpy"))


def gray_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (9, 8), (index * 37 % 256,) * 3).save(path)
    return paths
