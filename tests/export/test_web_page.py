"""The exported page in a real browser: pixels as the Python side makes them."""

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
  const { networkInput } = await import("./preprocess.js");
  const file = new Blob([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))]);
  const { data, shape } = await networkInput(file, preprocessing);
  return [Array.from(data), shape];
}"""


def noise(width: int, height: int, mode: str = "RGB", **save: object) -> bytes:
    """Smooth waves with noise on them, as a PNG or what ``save`` says."""
    generator = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (5 + k) + y / (9 - k)) for k in range(len(mode))]
    pixels = np.stack(waves, -1) + generator.normal(0, 25, (height, width, len(mode)))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze(), mode).save(buffer, **{"format": "PNG", **save})
    return buffer.getvalue()


def test_pixels_are_those_of_pillow(browser: Browser, tmp_path: Path):
    (tmp_path / "index.html").write_text('<link rel="icon" href="data:,">')
    shutil.copy(PAGE / "preprocess.js", tmp_path)
    cases = [
        (noise(640, 481), Preprocessing(64, 73)),
        (noise(51, 300), Preprocessing(32, 37)),  # cut to 4 : 1, and no even margin
        (noise(7, 5), Preprocessing(16, 17, interpolation="bicubic")),  # enlarged
        (noise(333, 290), Preprocessing(48, 55, interpolation="bicubic")),
        (noise(90, 120, "L"), Preprocessing(28, 28, (0.4,), (0.2,))),
        (noise(120, 90), Preprocessing(28, 32, (0.4,), (0.2,))),  # colours become grey
        (noise(32, 32), Preprocessing(32, 32)),  # nothing to do
    ]
    with serve_folder(tmp_path) as address:
        page = browser.open(address)
        for content, preprocessing in cases:
            question = [base64.b64encode(content).decode(), preprocessing.to_dict()]
            data, shape = page.evaluate(PREPROCESS, question)
            expected = preprocessing.center(preprocessing.read(Image.open(io.BytesIO(content)))).permute(1, 2, 0)
            assert shape == [1, *expected.shape]
            differences = np.abs(np.array(data) - np.asarray(expected).flatten())
            assert differences.max() <= 1, f"{preprocessing}: {(differences > 0).mean():.1%} differ"
