"""The classifier: equal predictions for every kind of image, and one run of the network for scores and features."""

import io
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_images, randomized
from graphs import SHORT_STAGES
from PIL import Image

import ghostnets
from ghostnets import engine
from ghostnets.artefacts import (
    NONE_OF_THESE,
    Classifier,
    Description,
    Model,
    load_classifier,
    open_model,
    softmax,
    top_k,
)
from ghostnets.artefacts.checkpoint import EngineCheckpointModel, TorchCheckpointModel
from ghostnets.artefacts.formats import FORMATS
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.data import evaluation_batches, open_folder
from ghostnets.errors import CheckpointError, ConfigurationError, ImageError
from ghostnets.export.deployed import DeployedModel, ExportJob
from ghostnets.models import Network, create_model
from ghostnets.predict import find_inputs, predict_images
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(32, 36, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bicubic")
NAMES = tuple("abcde")
needs_engine = pytest.mark.skipif(not engine.session.is_built(), reason="the engine needs a C++ compiler")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    arguments = {"num_classes": 5, "width": 0.1, "stages": SHORT_STAGES}
    model = randomized(create_model("ghostnetv2_100", **arguments))
    path = tmp_path_factory.mktemp("classifier") / "best.safetensors"
    save_checkpoint(path, Checkpoint("ghostnetv2_100", arguments, model.state_dict(), NAMES, PREPROCESSING))
    return path


@pytest.fixture(scope="module")
def classifier(checkpoint: Path) -> Classifier:
    return Classifier(open_model(checkpoint, threads=1))


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def rotated_jpeg(path: Path) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = 6  # display rotated a quarter clockwise
    Image.fromarray(noise(41, 50, 3)).save(path, "JPEG", exif=exif)
    with Image.open(path) as image:
        return np.rot90(np.asarray(image), -1)


def transparent_png(path: Path) -> np.ndarray:
    pixels = noise(41, 50, 4)
    Image.fromarray(pixels).save(path, "PNG")
    return pixels


def palette_png(path: Path) -> np.ndarray:
    Image.fromarray(noise(41, 50, 3)).quantize(16).save(path, "PNG", transparency=3)
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image.convert("RGBA"))


def sixteen_bit_png(path: Path) -> np.ndarray:
    pixels = noise(41, 50, dtype=np.uint16)
    Image.fromarray(pixels).save(path, "PNG")
    return pixels


def grayscale_png(path: Path) -> np.ndarray:
    pixels = noise(41, 50)
    Image.fromarray(pixels).save(path, "PNG")
    return pixels[:, :, None]


def cmyk_jpeg(path: Path) -> np.ndarray:
    Image.fromarray(noise(41, 50, 3)).convert("CMYK").save(path, "JPEG")
    with Image.open(path) as image:
        assert image.mode == "CMYK"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "write", [rotated_jpeg, transparent_png, palette_png, sixteen_bit_png, grayscale_png, cmyk_jpeg]
)
def test_path_bytes_array_and_pil_image_give_equal_predictions(
    classifier: Classifier, tmp_path: Path, write: Callable[[Path], np.ndarray]
):
    path = tmp_path / "image"
    pixels = write(path)
    content = path.read_bytes()
    with Image.open(path) as image:
        kinds: list[Any] = [path, str(path), content, io.BytesIO(content), pixels, image, image.copy()]
        mixed = classifier(kinds, features=True)
        single = [classifier(kind if kind is not kinds[3] else io.BytesIO(content), features=True) for kind in kinds]
    (streamed,) = [p for batch in predict_images(classifier, find_inputs([path]), top=5, features=True) for p in batch]
    for prediction, alone in zip(mixed, single, strict=True):
        assert prediction.path in ("", str(path))
        for other in (streamed, alone):
            assert (prediction.classes, prediction.probabilities) == (other.classes, other.probabilities)
            np.testing.assert_array_equal(prediction.features, other.features)


def test_large_jpeg_is_decoded_at_reduced_scale_from_path_and_bytes(classifier: Classifier, tmp_path: Path):
    Image.fromarray(noise(400, 300, 3)).save(tmp_path / "a.jpg")
    expected = PREPROCESSING.pixels(tmp_path / "a.jpg")
    assert not np.array_equal(PREPROCESSING.center(PREPROCESSING.read(tmp_path / "a.jpg")).permute(1, 2, 0), expected)
    for image in (tmp_path / "a.jpg", (tmp_path / "a.jpg").read_bytes()):
        np.testing.assert_array_equal(classifier.read(image), expected)


def test_pil_image_is_not_modified(classifier: Classifier, tmp_path: Path):
    rotated_jpeg(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        classifier(image)
        assert image.size == (50, 41)
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (7, ConfigurationError, "given as int; give a path, the bytes of a file, a numpy array or a PIL image"),
        (None, ConfigurationError, "given as NoneType"),
        (torch.zeros(3, 8, 8), ConfigurationError, "given as Tensor"),
        ([["a.png"]], ConfigurationError, "given as list"),
        (np.zeros((8, 8), np.float32), ImageError, r"the image is an array float32 \(8, 8\); give uint8 or uint16"),
        (np.zeros((2, 8, 8, 3), np.uint8), ImageError, r"uint8 \(2, 8, 8, 3\).* several images as a list"),
        (np.zeros((8, 8, 2), np.uint8), ImageError, r"uint8 \(8, 8, 2\)"),
        (np.zeros((0, 8, 3), np.uint8), ImageError, r"uint8 \(0, 8, 3\)"),
        (b"", ImageError, "the file is empty"),
        (b"x", ImageError, "the image cannot be read as an image"),
        ("no.png", ImageError, r"there is no image no\.png"),
        ([np.zeros((8, 8), np.uint8), b"x"], ImageError, "image 1 of the list cannot be read"),
        (Image.fromarray(np.zeros((8, 8), np.float32)), ImageError, "floating-point"),
    ],
)
def test_wrong_images_get_one_sentence(classifier: Classifier, image: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message) as caught:
        classifier(image)
    assert "\n" not in str(caught.value)


def test_top_and_lists(classifier: Classifier):
    image = noise(40, 40, 3)
    prediction = classifier(image)
    assert sorted(prediction.classes) == list(NAMES)
    assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
    assert (prediction.path, prediction.error, prediction.features) == ("", None, None)
    assert classifier(image, top=2).classes == prediction.classes[:2]
    assert classifier(image, top=99) == prediction
    assert classifier([]) == []
    many = classifier([image] * 37, top=1)
    assert [p.classes for p in many] == [prediction.classes[:1]] * 37
    with pytest.raises(ConfigurationError, match="top is 0"):
        classifier(image, top=0)


def test_top_k_is_stable_and_softmax_sums_to_one():
    scores = np.array([[0.1, 0.3, 0.3, 0.1], [0.0, -0.0, 2.0, 0.0]], np.float32)
    indices, values = top_k(scores, 3)
    assert indices.tolist() == [[1, 2, 0], [2, 0, 1]]
    np.testing.assert_array_equal(values, np.take_along_axis(scores, indices, 1))
    assert top_k(scores, 9)[0].shape == (2, 4)
    assert top_k(scores[:0], 2)[0].shape == (0, 2)
    logits = np.array([[1000, 999, -1000], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(softmax(logits), torch.from_numpy(logits).softmax(1), atol=1e-7)
    assert softmax(logits[:0]).shape == (0, 3)


def count_runs(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the runs of the runtime below ``model``, as elements of a list."""
    runs: list[int] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            runs.append(1)
            return function(*arguments, **options)

        return run

    inner: Any = model
    if isinstance(model, EngineCheckpointModel):
        monkeypatch.setattr(engine.Session, "__call__", counted(engine.Session.__call__))
    elif isinstance(model, TorchCheckpointModel):
        model.network.register_forward_pre_hook(lambda *_: runs.append(1))
    elif hasattr(inner, "session"):  # ONNX Runtime
        session = inner.session
        monkeypatch.setattr(inner, "session", SimpleNamespace(run=counted(session.run)))
    elif hasattr(inner, "compiled"):  # OpenVINO
        inner.thread_local.request = SimpleNamespace(infer=counted(inner.compiled.create_infer_request().infer))
    else:  # torch.export
        inner.program = counted(inner.program)
    return runs


def exported(format_name: str, checkpoint: Path, folder: Path) -> Path:
    """The network in a file with features, written but not verified."""
    source, chosen = read_checkpoint(checkpoint), FORMATS[format_name]
    description = Description(
        *(source.architecture, source.arguments, NAMES, PREPROCESSING),
        input=chosen.inputs[0],
        output=chosen.outputs[0],
        has_features=True,
    )
    path = folder / f"net{chosen.suffix}"
    import_module(f"ghostnets.export.{chosen.module}").write(
        ExportJob(source, description, np.zeros((0, 32, 32, 3), np.uint8)), path
    )
    return path


@pytest.mark.parametrize(
    ("runtime", "library"),
    [
        pytest.param("engine", "numpy", marks=needs_engine),
        ("torch", "torch"),
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("torch-export", "torch"),
    ],
)
def test_scores_and_features_take_one_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, library: str
):
    pytest.importorskip(library, reason=f"{runtime} needs {library}")
    if runtime == "torch":
        monkeypatch.setattr("ghostnets.engine.session.import_native", lambda _: (_ for _ in ()).throw(engine_missing()))
    path = checkpoint if runtime in ("engine", "torch") else exported(runtime, checkpoint, tmp_path)
    model = open_model(path, threads=1)
    assert isinstance(model, EngineCheckpointModel) == (runtime == "engine")
    assert isinstance(model, TorchCheckpointModel) == (runtime == "torch")
    pixels = noise(3, 32, 32, 3)
    first = model.run(pixels, features=True)
    runs = count_runs(model, monkeypatch)
    second = model.run(pixels, features=True)
    assert len(runs) == 1
    scores = model.run(pixels)
    assert len(runs) == 2
    assert scores.features is None
    np.testing.assert_array_equal(scores.scores, second.scores)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    network = read_checkpoint(checkpoint).build()
    x = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        probabilities = network(x).softmax(1)
        network.reset_classifier(0)
        features = network(x)
    np.testing.assert_allclose(second.features, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(Classifier(model).run(pixels).scores, probabilities, rtol=1e-4, atol=1e-4)


def engine_missing() -> Exception:
    from ghostnets.errors import EngineError

    return EngineError("not built")


def test_load_classifier_recognises_training_images(tiny_run: Path, tmp_path: Path):
    classifier = ghostnets.load_classifier(tiny_run / "best.safetensors", threads=1)
    pixels = np.random.default_rng(1).normal(60, 30, (16, 16, 3)).clip(0, 255)  # as make_images draws the dark ones
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "night.png")
    prediction = classifier(tmp_path / "night.png")
    assert prediction.classes == ("dark", "light")
    assert prediction.probabilities[0] > 0.5
    assert prediction.path == str(tmp_path / "night.png")
    assert Classifier(tiny_run / "best.safetensors").class_names == ("dark", "light")


def test_inference_and_evaluation_preprocess_alike(tiny_run: Path, tmp_path: Path):
    make_images(tmp_path, classes={"dark": 4, "light": 4}, size=(37, 23))
    classifier = ghostnets.load_classifier(tiny_run / "best.safetensors", threads=1)
    preprocessing = read_checkpoint(tiny_run / "best.safetensors").preprocessing
    images, _ = open_folder(tmp_path).load_split("train", preprocessing)
    paths = open_folder(tmp_path).splits["train"].paths
    evaluated = torch.cat([batch.pixels for batch in evaluation_batches(images, preprocessing, batch_size=3)])
    assert np.array_equal(evaluated.permute(0, 2, 3, 1), np.stack([classifier.read(path) for path in paths]))


def test_calibrated_checkpoint_and_its_export_divide_by_the_temperature(checkpoint: Path, tmp_path: Path):
    plain, pixels = read_checkpoint(checkpoint), noise(3, 32, 32, 3)
    assert plain.temperature is None
    calibrated = tmp_path / "calibrated.safetensors"
    save_checkpoint(calibrated, replace(plain, temperature=2.5))
    assert read_checkpoint(calibrated).temperature == 2.5
    logits = open_model(checkpoint, threads=1).run(pixels).scores
    x = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        expected = (plain.build()(x) / 2.5).softmax(1).numpy()
    classifier = load_classifier(calibrated, threads=1)
    np.testing.assert_array_equal(classifier.model.run(pixels).scores, logits)  # logits are those of the network
    np.testing.assert_allclose(classifier.run(pixels).scores, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(Classifier(open_model(checkpoint, threads=1)).run(pixels).scores, softmax(logits))
    network = plain.build()
    assert isinstance(network, Network)
    description = replace(classifier.model.description, output="probabilities", has_features=False)
    (deployed,) = DeployedModel(network, description)(torch.from_numpy(pixels))
    np.testing.assert_allclose(deployed.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0, -1, "2", True, float("inf")])
def test_checkpoint_with_wrong_temperature_is_rejected(checkpoint: Path, tmp_path: Path, value: Any):
    save_checkpoint(tmp_path / "wrong.safetensors", replace(read_checkpoint(checkpoint), temperature=value))
    with pytest.raises(CheckpointError, match=r"temperature is .*, not a number above 0"):
        read_checkpoint(tmp_path / "wrong.safetensors")


def test_flip_averages_the_probabilities_of_both_directions(checkpoint: Path):
    model, pixels = open_model(checkpoint, threads=1), noise(2, 32, 32, 3)
    one, other = (Classifier(model).run(x).scores for x in (pixels, np.ascontiguousarray(pixels[:, :, ::-1])))
    both = Classifier(model, flip=True).run(pixels, features=True)
    np.testing.assert_allclose(both.scores, (one + other) / 2, rtol=1e-6)
    np.testing.assert_array_equal(both.features, model.run(pixels, features=True).features)
    assert Classifier(model, flip=True, threshold=0.3).copy().flip


def test_threshold_answers_none_of_these(checkpoint: Path):
    image = noise(32, 32, 3)
    first = load_classifier(checkpoint, threads=1)(image)
    assert first.answer is None
    probability = first.probabilities[0]
    sure = load_classifier(checkpoint, threads=1, threshold=probability)(image)
    unsure = load_classifier(checkpoint, threads=1, threshold=min(1.0, probability * 1.01))(image)
    assert (sure.answer, unsure.answer) == (first.classes[0], NONE_OF_THESE)
    assert sure.classes == unsure.classes == first.classes
    for threshold in (0, 1.5, float("nan")):
        with pytest.raises(ConfigurationError, match="it must be a probability above 0 and at most 1"):
            load_classifier(checkpoint, threshold=threshold)


def test_device_is_for_checkpoints(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghostnets.devices._count", lambda kind: int(kind == "cuda"))
    with pytest.raises(ConfigurationError, match="the device is xpu, but torch finds cuda and cpu"):
        open_model(checkpoint, device="xpu")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ConfigurationError, match="is an exported file, which runs on the CPU, not on cuda"):
        open_model(tmp_path / "net.onnx", device="cuda")
    monkeypatch.setattr("ghostnets.artefacts.checkpoint.select_device", lambda name: torch.device("meta"))
    monkeypatch.setattr("ghostnets.artefacts.checkpoint.describe_device", lambda device: "a device")
    assert open_model(checkpoint, device="cuda").runtime == f"torch {torch.__version__} on a device"
