"""A network that is known: its answer is the brightness of the image, so that no test depends on weights."""

from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets.artefacts import Artefact, Description
from ghostnets.preprocessing import Preprocessing


class Brightness(Artefact):
    """Three classes: dark, middling, light."""

    kind = "test"

    def _run(self, x):
        mean = x.mean((1, 2, 3), dtype=np.float32)[:, None] / 255
        return (-8 * np.abs(mean - np.array([0, 0.5, 1], np.float32)), np.concatenate([mean, 1 - mean], 1))


def brightness(path=Path("brightness.test"), **_: object) -> Brightness:
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3)
    description = Description("none", {}, ("dark", "middling", "light"), preprocessing, has_features=True)
    return Brightness(Path(path), description, "numpy")


def grey_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (9, 8), (index * 37 % 256,) * 3).save(path)
    return paths
