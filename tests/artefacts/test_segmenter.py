"""Masks of a small segmentation network: in torch and the engine, exported, and written by ``ghostnets predict``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_segmenter
from PIL import Image
from torch.nn import functional as F

from ghostnets import export_model
from ghostnets.artefacts import (
    Description,
    Model,
    Segmenter,
    load_classifier,
    load_detector,
    load_segmenter,
    open_model,
)
from ghostnets.artefacts.masks import classify_pixels
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.errors import ArtefactError, ConfigurationError, EngineError
from ghostnets.export.report import MASK_TOLERANCES, ExportComparison, find_violation
from ghostnets.export.verify_masks import compare_masks
from ghostnets.predict import Input, MaskPictures
from ghostnets.preprocessing import Preprocessing, class_color, decode, decode_values, limits

NAMES = ("land", "water", "road")
SIDE = 48  # of the input


@pytest.fixture(scope="module")
def checkpoint(tiny_segmenter: Path) -> Path:
    return tiny_segmenter


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index, (height, width) in enumerate(((60, 90), (31, 20))):
        coarse = Image.fromarray(generator.integers(0, 255, (5, 6, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.NEAREST).save(folder / f"{index}.png")
    return folder


def expected_mask(checkpoint: Path, image: Path) -> np.ndarray:
    """The class of each pixel by torch alone; its resizing is not antialiased."""
    stored = read_checkpoint(checkpoint, task="segment")
    pixels = torch.from_numpy(stored.preprocessing.fitted(image).pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        probabilities = stored.build()(stored.preprocessing.normalize(pixels)).softmax(1)
    width, height = decode(image).size
    resized = F.interpolate(probabilities, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].argmax(0).numpy()


def test_masks_have_the_size_of_the_image_and_are_those_of_torch(checkpoint: Path, photos: Path):
    segmenter = load_segmenter(checkpoint, threads=1)
    files = sorted(photos.iterdir())
    found = segmenter(files)
    for image, segmented in zip(files, found, strict=True):
        width, height = decode(image).size
        assert (segmented.size, segmented.mask.shape, segmented.scores.shape) == (
            (width, height),
            *[(height, width)] * 2,
        )
        assert (segmented.mask == expected_mask(checkpoint, image)).mean() >= 0.999
        assert len(segmented.shares) > 1
        assert sum(segmented.shares.values()) == pytest.approx(1)
        assert (segmented.scores > 1 / 3).all()
    content, array = files[0].read_bytes(), np.array(decode(files[0]))
    for source in (content, array, decode(files[0])):
        assert np.array_equal(segmenter(source).mask, found[0].mask)
    assert np.array_equal(segmenter.copy()(files[1]).mask, found[1].mask)


def test_pixels_of_a_letterboxed_image_come_from_its_part_of_the_input():
    logits = np.zeros((2, 4, 4), np.float32)
    logits[1, :, 2:] = 5  # the right half
    logits[1, 2:] = 9  # the padding below
    mask, scores = classify_pixels(logits, (8, 4), (4, 2))
    assert mask.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]] * 4  # the crossing is nearer to the confident class
    assert scores[0, -1] == pytest.approx(1 / (1 + np.exp(-5)))
    assert scores[0, 0] == pytest.approx(0.5)


def test_masks_have_the_size_of_a_jpeg_that_is_decoded_at_reduced_scale(checkpoint: Path, tmp_path: Path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (96, 64), "red").save(path)
    monkeypatch.setattr(limits, "MAX_MEMORY", 96 * 64 * 2)  # half of what it takes
    assert decode(path).size == (48, 32)
    segmented = load_segmenter(checkpoint, threads=1)(path)
    assert (segmented.size, segmented.mask.shape) == ((96, 64), (64, 96))
    picture = MaskPictures(tmp_path / "drawn", NAMES, max_pixels=10**6).write(Input("a.jpg", str(path)), segmented)
    assert decode(picture).size == (48, 32)


def test_flip_averages_the_probabilities_of_the_image_and_its_mirror_image(checkpoint: Path, photos: Path):
    image = np.array(decode(sorted(photos.iterdir())[0]).resize((SIDE, SIDE)))  # the size of the input: no resizing
    segmenter = load_segmenter(checkpoint, threads=1, flip=True)
    logits = segmenter.model.class_maps(np.stack([image, image[:, ::-1]]))
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    plain, mirrored = exponentials / exponentials.sum(1, keepdims=True)
    expected = (plain + mirrored[:, :, ::-1]) / 2
    found = segmenter(image)
    assert (found.mask == expected.argmax(0)).all()
    assert found.scores == pytest.approx(expected.max(0), abs=1e-5)
    assert np.array_equal(segmenter(np.ascontiguousarray(image[:, ::-1])).mask, found.mask[:, ::-1])
    assert np.array_equal(segmenter.copy()(image).scores, found.scores)
    assert not np.array_equal(load_segmenter(checkpoint, threads=1)(image).scores, found.scores)


@pytest.mark.parametrize(
    ("format_", "suffix", "precision", "agreement", "difference"),
    [
        ("onnx", "onnx", "f32", 0.999, 1e-3),
        ("engine", "engine", "f32", 0.999, 1e-3),
        ("openvino", "xml", "f16", 0.99, 5e-2),
    ],
)
def test_exported_file_gives_the_same_masks(
    checkpoint: Path, photos: Path, tmp_path: Path, format_: str, suffix: str, precision: str, agreement, difference
):
    options = {"format": format_, "precision": precision, "images": photos}
    try:
        report = export_model(checkpoint, tmp_path / f"fields.{suffix}", **options)
    except EngineError as error:
        pytest.skip(str(error))
    assert report.comparison.pixels > SIDE * SIDE
    assert report.comparison.top1_agreement >= agreement
    assert not report.comparison.torch_was_loaded
    files = sorted(photos.iterdir())
    expected = load_segmenter(checkpoint, threads=1)(files)
    found = load_segmenter(tmp_path / report.file, threads=1)(files)
    for one, other in zip(found, expected, strict=True):
        assert (one.mask == other.mask).mean() >= agreement
        assert np.abs(one.scores - other.scores).max() < difference


def test_networks_with_aspp_run_in_the_engine(photos: Path, tmp_path: Path):
    path = make_segmenter(tmp_path / "aspp.safetensors", head="aspp", output_stride=8)
    image = sorted(photos.iterdir())[0]
    segmenter = load_segmenter(path, threads=1)
    assert (segmenter(image).mask == expected_mask(path, image)).mean() >= 0.999


def test_a_file_whose_masks_differ_is_not_written():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 8, 8)).astype(np.float32) * 5
    times = {"seconds": (1, 1, 1), "torch_seconds": (1, 1, 1), "times_as_fast": (1, 1, 1), "runs": 1, "threads": 1}
    rest = {**times, "runtime": "test", "torch_was_loaded": False, "processor": "test"}
    same = compare_masks(logits + 1e-6, logits)
    assert find_violation(ExportComparison(**same, **rest), MASK_TOLERANCES["f32"]) is None
    changed = logits.copy()
    changed[0, :, 0, 0] = np.roll(changed[0, :, 0, 0], 1)
    differing = compare_masks(changed, logits)
    assert differing["top1_agreement"] == pytest.approx(1 - 1 / differing["pixels"])
    assert find_violation(ExportComparison(**differing, **rest), MASK_TOLERANCES["f32"]) is not None
    ties = logits.copy()
    ties[:, 0] = ties[:, 1:].max(1) + 1e-5  # equal to the highest: decided by rounding
    lower = ties.copy()
    lower[:, 0] -= 2e-5
    assert compare_masks(lower, ties)["pixels"] == 0


def test_int8_is_judged_by_the_overlap_of_each_class():
    classes = np.zeros((1, 10, 10), np.int64)
    classes[0, 0, :5] = 1  # five pixels
    other = classes.copy()
    other[0, 0, :2] = 0  # a difference of 2 % of the pixels, and of 40 % of a class
    logits, changed = (5 * np.eye(2, dtype=np.float32)[each].transpose(0, 3, 1, 2) for each in (classes, other))
    found = compare_masks(changed, logits)
    assert found["mean_iou"] == pytest.approx((95 / 97 + 3 / 5) / 2)
    times = {"seconds": (1, 1, 1), "torch_seconds": (1, 1, 1), "times_as_fast": (1, 1, 1), "runs": 1, "threads": 1}
    rest = {**times, "runtime": "test", "torch_was_loaded": False, "processor": "test"}
    violation = find_violation(ExportComparison(**found, **rest), MASK_TOLERANCES["int8"])
    assert "79.0% is the mean IoU of its classes with the network's, the minimum is 80%" in str(violation)


def test_int8_plan_gives_the_masks_of_its_checkpoint(checkpoint: Path, tmp_path: Path):
    generator = np.random.default_rng(0)
    for index in range(8):
        (tmp_path / "data" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "masks").mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 255, (5, 6, 3), np.uint8))
        coarse.resize((90, 60), Image.Resampling.NEAREST).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.new("L", (90, 60)).save(tmp_path / "data" / "masks" / f"{index}.png")  # not for calibration
    target = tmp_path / "fields.engine"
    report = export_model(checkpoint, target, format="engine", precision="int8", images=tmp_path / "data")
    assert report.images == 2
    assert report.comparison.mean_iou >= 0.8
    image = tmp_path / "data" / "images" / "0.png"
    mask, expected = (load_segmenter(path, threads=1)(image).mask for path in (target, checkpoint))
    assert (mask == expected).mean() > 0.85


def test_formats_and_precisions_that_are_not_compared_are_rejected(checkpoint: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a segmentation network, which format torch-export is not tested"):
        export_model(checkpoint, tmp_path / "a.pt2", format="torch-export")
    with pytest.raises(
        ConfigurationError, match=r"which format onnx holds in f32 or f16 or int8, .* omit precision bf16"
    ):
        export_model(checkpoint, tmp_path / "a.onnx", precision="bf16")


def test_networks_for_other_tasks_are_rejected_in_a_sentence(checkpoint: Path):
    model = open_model(checkpoint, threads=1)
    for load in (load_classifier, load_detector):
        with pytest.raises(
            ConfigurationError, match=r"is a segmentation network .* with ghostnets\.artefacts\.load_seg"
        ):
            load(checkpoint)
    description = Description.from_json(model.description.to_json())
    assert (description.task, description.class_names) == ("segment", NAMES)
    with pytest.raises(
        ArtefactError, match="fit is 'crop', which does not show a segmentation network the whole image"
    ):
        Description("ghostseg_050", {}, NAMES, Preprocessing(8, 8), task="segment")
    with pytest.raises(ConfigurationError, match="is a classifier"):
        Segmenter(OpenedClassifier(Path("c.onnx"), Description("ghostnet_050", {}, NAMES, Preprocessing(8, 8)), "test"))


class OpenedClassifier(Model):
    def _run(self, x, features):
        raise AssertionError


def test_predict_writes_masks_pictures_and_json(checkpoint: Path, photos: Path, tmp_path: Path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    masks, drawn = tmp_path / "masks", tmp_path / "drawn"
    options = ["--masks", str(masks), "--draw", str(drawn), "--json"]
    assert main(["predict", str(checkpoint), str(photos), str(tmp_path / "bad.png"), *options]) == 1
    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "bad.png"]
    assert "cannot be read" in rows[2]["error"]
    assert "wrote 2 masks" in output.err
    assert "0 land, 1 water, 2 road" in output.err
    assert "colors: land #800000, water #008000, road #808000" in output.err
    segmenter = load_segmenter(checkpoint, threads=1)
    for row, image in zip(rows, sorted(photos.iterdir()), strict=False):
        segmented = segmenter(image)
        assert row["shares"] == pytest.approx(segmented.shares)
        assert (row["width"], row["height"], row["error"]) == (*segmented.size, None)
        relative = image.relative_to(image.anchor)
        written = decode_values(masks / relative)
        assert written.mode == "P"
        assert np.array_equal(np.asarray(written), segmented.mask)
        assert written.getpalette()[:9] == [value for label in range(3) for value in class_color(label)]
        picture = decode(drawn / relative.with_name(f"{relative.name}.jpg"))
        assert picture.size == segmented.size
    assert main(["predict", str(checkpoint), str(photos), "--masks", str(tmp_path / "second")]) == 0
    assert "classes of the pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.5"], "is a segmentation network, and --threshold is for other networks"),
        (["--top", "3"], "is a segmentation network, and --top is for other networks"),
        (["--out", "x.csv"], "whose masks are not written to .csv; use --masks FOLDER"),
    ],
)
def test_options_of_other_networks_are_rejected(checkpoint: Path, photos: Path, options: list, message: str, capsys):
    assert main(["predict", str(checkpoint), str(photos), *options]) == 1
    assert message in capsys.readouterr().err
