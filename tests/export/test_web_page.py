"""Preprocessing of the exported page in a real browser against the Python preprocessing."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Browser, serve_folder
from PIL import Image

import ghostnets
from ghostnets.preprocessing import Preprocessing

pytestmark = pytest.mark.browser
PAGE = Path(ghostnets.__file__).parent / "export" / "web_page"

PREPROCESS = """async ([bytes, preprocessing]) => {
  const { preprocess } = await import("./preprocess.js");
  const file = new Blob([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))]);
  const { data, shape } = await preprocess(file, preprocessing);
  return [Array.from(data), shape];
}"""


def noisy_image(width: int, height: int, mode: str = "RGB", **save: object) -> bytes:
    """Encode smooth waves with noise, as PNG or with the arguments ``save``."""
    generator = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (5 + k) + y / (9 - k)) for k in range(len(mode))]
    pixels = np.stack(waves, -1) + generator.normal(0, 25, (height, width, len(mode)))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze(), mode).save(buffer, **{"format": "PNG", **save})
    return buffer.getvalue()


def test_pixels_match_pillow(browser: Browser, tmp_path: Path):
    (tmp_path / "index.html").write_text('<link rel="icon" href="data:,">')
    shutil.copy(PAGE / "preprocess.js", tmp_path)
    cases = [
        (noisy_image(640, 481), Preprocessing(64, 73)),
        (noisy_image(51, 300), Preprocessing(32, 37)),  # cropped to 4:1, odd margin
        (noisy_image(7, 5), Preprocessing(16, 17, interpolation="bicubic")),  # upsampled
        (noisy_image(333, 290), Preprocessing(48, 55, interpolation="bicubic")),
        (noisy_image(90, 120, "L"), Preprocessing(28, 28, (0.4,), (0.2,))),
        (noisy_image(120, 90), Preprocessing(28, 32, (0.4,), (0.2,))),  # colour to grayscale
        (noisy_image(32, 32), Preprocessing(32, 32)),  # unchanged
    ]
    with serve_folder(tmp_path) as address:
        page = browser.open(address)
        for content, preprocessing in cases:
            arguments = [base64.b64encode(content).decode(), preprocessing.to_dict()]
            data, shape = page.evaluate(PREPROCESS, arguments)
            expected = preprocessing.center(preprocessing.read(Image.open(io.BytesIO(content)))).permute(1, 2, 0)
            assert shape == [1, *expected.shape]
            differences = np.abs(np.array(data) - np.asarray(expected).flatten())
            assert differences.max() <= 1, f"{preprocessing}: {(differences > 0).mean():.1%} differ"
