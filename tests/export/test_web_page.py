"""Preprocessing, boxes and masks of the exported page in a real browser, against those of Python."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Browser, serve_folder
from PIL import Image

import ghostnets
from ghostnets.artefacts import decode_predictions, suppress
from ghostnets.artefacts.boxes import count_points
from ghostnets.artefacts.masks import classify_pixels
from ghostnets.preprocessing import Preprocessing, class_color

pytestmark = pytest.mark.browser
PAGE = Path(ghostnets.__file__).parent / "export" / "web_page"

PREPROCESS = """async ([bytes, preprocessing]) => {
  const { preprocess } = await import("./preprocess.js");
  const file = new Blob([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))]);
  const { data, shape, width, height, inside } = await preprocess(file, preprocessing);
  return [Array.from(data), shape, [width, height], inside];
}"""
OBJECTS = """async ([predictions, description, image]) => {
  const { findObjects } = await import("./find_objects.js");
  return findObjects(Float32Array.from(predictions), description, image);
}"""
MASK = """async ([logits, description, image]) => {
  const { findMask } = await import("./find_mask.js");
  return findMask(Float32Array.from(logits), description, image);
}"""


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """An empty page beside the modules of the exported page."""
    (tmp_path / "index.html").write_text('<link rel="icon" href="data:,">')
    for module in PAGE.glob("*.js"):
        shutil.copy(module, tmp_path)
    with serve_folder(tmp_path) as address:
        yield browser.open(address)


def noisy_image(width: int, height: int, mode: str = "RGB", **save: object) -> bytes:
    """Encode smooth waves with noise, as PNG or with the arguments ``save``."""
    generator = np.random.default_rng(width * height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (5 + k) + y / (9 - k)) for k in range(len(mode))]
    pixels = np.stack(waves, -1) + generator.normal(0, 25, (height, width, len(mode)))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).squeeze(), mode).save(buffer, **{"format": "PNG", **save})
    return buffer.getvalue()


def test_pixels_match_pillow(page: Any):
    cases = [
        (noisy_image(640, 481), Preprocessing(64, 73)),
        (noisy_image(51, 300), Preprocessing(32, 37)),  # cropped to 4:1, odd margin
        (noisy_image(7, 5), Preprocessing(16, 17, interpolation="bicubic")),  # upsampled
        (noisy_image(333, 290), Preprocessing(48, 55, interpolation="bicubic")),
        (noisy_image(90, 120, "L"), Preprocessing(28, 28, (0.4,), (0.2,))),
        (noisy_image(120, 90), Preprocessing(28, 32, (0.4,), (0.2,))),  # colour to grayscale
        (noisy_image(32, 32), Preprocessing(32, 32)),  # unchanged
        (noisy_image(200, 31), Preprocessing(48, 48, fit="stretch")),  # more elongated than 4:1, and not cropped
        (noisy_image(31, 200), Preprocessing(48, 48, fit="letterbox")),  # 7.44 columns, then padding
        (noisy_image(80, 25), Preprocessing(40, 40, fit="letterbox")),  # 12.5 rows, rounded to even
        (noisy_image(80, 25, "L"), Preprocessing(40, 40, (0.4,), (0.2,), fit="letterbox")),
    ]
    for content, preprocessing in cases:
        arguments = [base64.b64encode(content).decode(), preprocessing.to_dict()]
        data, shape, size, inside = page.evaluate(PREPROCESS, arguments)
        image = Image.open(io.BytesIO(content))
        if preprocessing.fit == "crop":
            expected = preprocessing.center(preprocessing.read(image)).permute(1, 2, 0).numpy()
        else:
            expected = preprocessing.fitted(image).pixels
            scale = tuple(side / part for side, part in zip(size, inside, strict=True))
            assert scale == preprocessing.scale(image.size)
        assert tuple(size) == image.size
        assert shape == [1, *expected.shape]
        differences = np.abs(np.array(data) - expected.flatten())
        assert differences.max() <= 1, f"{preprocessing}: {(differences > 0).mean():.1%} differ"


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_objects_match_python(page: Any, fit: str):
    preprocessing, names, strides, bins = Preprocessing.for_boxes(72, fit=fit), ("fish", "shark"), (8, 16, 32, 64), 8
    size = (200, 90)
    generator = np.random.default_rng(0)
    predictions = generator.normal(size=(1, count_points(72, strides), 2 + 4 * bins)).astype(np.float32) * 2
    boxes, scores = (each[0] for each in decode_predictions(predictions, 72, strides, bins=bins))
    limits = np.array([*size, *size], np.float32)
    upright = np.minimum(boxes * np.array([*preprocessing.scale(size)] * 2, np.float32), limits)
    expected = suppress(upright, scores)
    assert 40 < len(expected.labels) < (scores > 0.3).sum() / 2  # most candidates are suppressed
    inside = [round(side / scale) for side, scale in zip(size, preprocessing.scale(size), strict=True)]
    description = {"class_names": names, "strides": strides, "bins": bins, "preprocessing": preprocessing.to_dict()}
    image = {"width": size[0], "height": size[1], "inside": inside}
    found = page.evaluate(OBJECTS, [predictions.flatten().tolist(), description, image])
    assert [one["class"] for one in found] == [names[label] for label in expected.labels]
    np.testing.assert_allclose([one["score"] for one in found], expected.scores, atol=1e-6)
    np.testing.assert_allclose([one["box"] for one in found], expected.boxes, atol=1e-3)
    assert page.evaluate(OBJECTS, [np.full(predictions.size, -9.0).tolist(), description, image]) == []


@pytest.mark.parametrize(("size", "inside"), [((90, 61), (24, 24)), ((13, 40), (8, 24)), ((24, 24), (24, 24))])
def test_masks_match_python(page: Any, size: tuple[int, int], inside: tuple[int, int]):
    names = ("land", "water", "road")
    logits = np.random.default_rng(0).normal(size=(3, 24, 24)).astype(np.float32) * 3
    expected, _ = classify_pixels(logits, size, inside)
    description = {"class_names": names, "preprocessing": {"image_size": 24}}
    image = {"width": size[0], "height": size[1], "inside": inside}
    found = page.evaluate(MASK, [logits.flatten().tolist(), description, image])
    colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"]))).convert("RGB"))
    wanted = np.array([class_color(label) for label in range(3)], np.uint8)[expected]
    assert (colors == wanted).all(-1).mean() >= 0.999
    counts = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert [one["index"] for one in found["classes"]] == np.argsort(-counts, kind="stable").tolist()
    for one in found["classes"]:
        assert (one["class"], one["color"]) == (names[one["index"]], "#" + bytes(class_color(one["index"])).hex())
        assert abs(one["share"] - counts[one["index"]]) <= 0.001
