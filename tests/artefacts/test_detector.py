import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostnets.artefacts import Classifier, Description, Model, ObjectDetector, load_detector, open_model
from ghostnets.artefacts.boxes import decode_predictions, suppress
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.errors import ArtefactError, ConfigurationError, ImageError
from ghostnets.models.detection import create_detector, decode_boxes, select_boxes
from ghostnets.predict import BoxPictures, Input
from ghostnets.preprocessing import Preprocessing, decode, limits

SIDE, STRIDES, BINS = 64, (8, 16, 32, 64), 8
POINTS = 64 + 16 + 4 + 1
ARGUMENTS = {"num_classes": 2, "channels": 16}


def description(**changes) -> Description:
    values = {"strides": STRIDES, "bins": BINS, "task": "detect", "preprocessing": Preprocessing.for_boxes(SIDE)}
    return Description("ghostdet_050", ARGUMENTS, ("fish", "shark"), **{**values, **changes})


class FixedModel(Model):
    """Returns the same outputs for each image of a batch."""

    def __init__(self, *outputs: np.ndarray, **changes) -> None:
        super().__init__(Path("fixed"), description(**changes), "fixed")
        self.outputs = outputs

    def _run(self, x, features):
        return [np.repeat(output[None], len(x), 0) for output in self.outputs]


def predictions(**logits: float) -> np.ndarray:
    """Predictions without objects, except for those given as point=logit of the class fish."""
    values = np.zeros((POINTS, 2 + 4 * BINS), np.float32)
    values[:, :2] = -20
    for point, logit in logits.items():
        values[int(point[1:]), 0] = logit
        values[int(point[1:]), 2 + 1 :: BINS] = 30  # a distance of one stride to each side
    return values


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = create_detector("ghostdet_050", **ARGUMENTS)
    for layer in network.head.predict:  # scores and distances that differ
        torch.nn.init.normal_(layer.weight, std=1.0)
        torch.nn.init.normal_(layer.bias, std=1.0)
    path = tmp_path_factory.mktemp("detector") / "fish.safetensors"
    preprocessing = Preprocessing.for_boxes(SIDE)
    save_checkpoint(path, Checkpoint("ghostdet_050", ARGUMENTS, network.state_dict(), ("fish", "shark"), preprocessing))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_decoding_and_suppression_equal_those_of_torch(seed: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, POINTS, 2 + 4 * BINS, generator=generator) * 3
    expected = decode_boxes(x, (SIDE, SIDE), STRIDES, bins=BINS)
    boxes, scores = decode_predictions(x.numpy(), SIDE, STRIDES, bins=BINS)
    np.testing.assert_allclose(boxes, expected[0], atol=1e-5 * SIDE)
    np.testing.assert_allclose(scores, expected[1], atol=1e-6)
    for image in range(2):
        theirs = select_boxes(expected[0][image], expected[1][image], min_score=0.3)
        ours = suppress(expected[0][image].numpy(), expected[1][image].numpy(), min_score=0.3)
        assert ours.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-5)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_boxes_are_pixels_of_the_upright_original():
    # Point 9 is at (8, 8) of 64 x 64; its box reaches from 0 to 16.
    detector = ObjectDetector(FixedModel(predictions(p9=3.0)))
    found = detector(np.zeros((32, 128, 3), np.uint8))
    assert found.size == (128, 32)
    np.testing.assert_allclose(found.boxes, [[0, 0, 32, 8]], atol=1e-3)
    assert found.classes == ("fish",)
    turned = Image.new("RGB", (128, 32))
    exif = turned.getexif()
    exif[0x0112] = 6  # upright it is 32 wide and 128 high
    content = io.BytesIO()
    turned.save(content, "JPEG", exif=exif)
    found = detector(content.getvalue())
    assert found.size == (32, 128)
    np.testing.assert_allclose(found.boxes, [[0, 0, 8, 32]], atol=1e-3)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_boxes_are_pixels_of_the_original_also_of_a_jpeg_decoded_at_reduced_scale(
    monkeypatch, tmp_path: Path, fit: str
):
    turned = Image.new("RGB", (256, 128), "white")
    exif = turned.getexif()
    exif[0x0112] = 6  # upright it is 128 wide and 256 high
    turned.save(tmp_path / "a.jpg", exif=exif)
    detector = ObjectDetector(FixedModel(predictions(p9=3.0), preprocessing=Preprocessing.for_boxes(SIDE, fit=fit)))
    expected = detector(tmp_path / "a.jpg")
    monkeypatch.setattr(limits, "MAX_MEMORY", 256 * 128 * 4)  # half of what the rotation takes
    assert decode(tmp_path / "a.jpg").size == (64, 128)
    found = detector(tmp_path / "a.jpg")
    assert found.size == (128, 256)
    np.testing.assert_allclose(found.boxes, [[0, 0, 32 if fit == "stretch" else 64, 64]], atol=1e-3)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    # Drawn into the picture of half the size: the right side of the box is a blue line in its middle.
    picture = BoxPictures(tmp_path / "drawn", ("fish", "shark"), max_pixels=10**6).write(
        Input("a.jpg", str(tmp_path / "a.jpg")), found
    )
    with Image.open(picture) as drawn:
        assert drawn.size == (64, 128)
        right = int(found.boxes[0][2]) // 2
        assert min(drawn.getpixel((right - 1 if right == 64 else right, 28))[:1]) < 90


def test_letterboxed_objects_end_at_the_edge_of_the_image():
    preprocessing = Preprocessing.for_boxes(SIDE, fit="letterbox")
    # Point 33 is at (8, 32), the last row of the image inside the square: its box reaches into the gray below.
    detector = ObjectDetector(FixedModel(predictions(p33=3.0), preprocessing=preprocessing))
    found = detector(Image.new("RGB", (128, 64)))
    np.testing.assert_allclose(found.boxes, [[0, 48, 32, 64]], atol=1e-3)


def test_no_object_and_more_objects_than_are_returned():
    assert ObjectDetector(FixedModel(predictions()))(Image.new("RGB", (9, 9))).boxes.shape == (0, 4)
    boxes = np.stack([[x, y, x + 8, y + 8] for x in range(0, 400, 10) for y in range(0, 400, 10)]).astype(np.float32)
    scores = np.linspace(0.4, 0.9, len(boxes), dtype=np.float32)[:, None]
    assert len(suppress(boxes, scores).boxes) == 100
    kept = suppress(boxes, scores, max_boxes=2000)
    assert len(kept.boxes) == 1000  # candidates
    assert kept.scores[0] == scores.max()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([predictions()[:-1]], r"returns \(84, 34\) per image, but its description says \(85, 34\)"),
        ([predictions()[:, :-1]], r"returns \(85, 33\) per image"),
        ([predictions(), predictions()], r"returns \(85, 34\), \(85, 34\) per image"),
        ([np.float32(1.0)], r"returns \(\) per image"),
        ([predictions() * np.float32(np.nan)], "not finite"),
        ([np.zeros((34, size, size), np.float32) for size in (8, 4, 1, 2)], "one map for each of 4 levels"),
    ],
)
def test_outputs_that_do_not_fit_the_description_are_an_error(outputs: list, message: str):
    with pytest.raises(ArtefactError, match=message):
        ObjectDetector(FixedModel(*outputs))(Image.new("RGB", (9, 9)))


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": (8, 16, 24)},
        {"strides": ()},
        {"strides": (0, 0)},
        {"strides": ("8",)},
        {"bins": 1},
        {"bins": 10**9},
        {"bins": True},
        {"preprocessing": Preprocessing(64, 64)},
        {"output": "probabilities"},
        {"task": "segment"},
        {"task": "track"},
    ],
)
def test_changed_description_is_rejected(changes: dict):
    with pytest.raises(ArtefactError, match="its description cannot be used"):
        description(**changes)


def test_description_of_a_classifier_has_no_fields_of_detectors():
    assert Description.from_json(description().to_json()) == description()
    classifier = replace(description(), task="classify", strides=(), bins=0, preprocessing=Preprocessing(16, 16))
    assert not {"task", "strides", "bins", "fit"} & set(classifier.to_json().replace('"', " ").split())


def test_checkpoint_in_the_engine_equals_the_network(checkpoint_file: Path):
    detector = load_detector(checkpoint_file, threads=1)
    assert detector.model.runtime.startswith("ghostnets engine")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    found = detector([image, Image.fromarray(image)])
    pixels = detector.read(image).pixels
    preprocessing = Preprocessing.for_boxes(SIDE)
    network = read_checkpoint(checkpoint_file, task="detect").build()
    with torch.no_grad():
        raw = network(preprocessing.normalize(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)))
    boxes, scores = decode_boxes(raw, (SIDE, SIDE), STRIDES, bins=BINS)
    expected = select_boxes(boxes[0], scores[0], min_score=0.3)
    assert len(expected.boxes) > 10
    for one in found:
        assert one.labels == tuple(expected.labels.tolist())
        np.testing.assert_allclose(one.boxes, expected.boxes * torch.tensor([120, 90, 120, 90]) / SIDE, atol=2e-2)
        np.testing.assert_allclose(one.scores, expected.scores, atol=1e-4)


def test_detector_is_rejected_as_classifier_and_vice_versa(checkpoint_file: Path):
    with pytest.raises(ConfigurationError, match=r"fish.safetensors is a detector .*, and a classifier is needed"):
        Classifier(checkpoint_file)
    model = open_model(checkpoint_file)
    with pytest.raises(ConfigurationError, match="load_detector"):
        model.run(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    classifier = FixedModel(np.zeros(2, np.float32), task="classify", strides=(), bins=0)
    with pytest.raises(ConfigurationError, match=r"is a classifier .*load_classifier"):
        ObjectDetector(classifier)


def test_image_that_cannot_be_read_is_named():
    detector = ObjectDetector(FixedModel(predictions()))
    with pytest.raises(ImageError, match=r"there is no image nowhere.jpg"):
        detector("nowhere.jpg")
    with pytest.raises(ImageError, match="image 1 of the list"):
        detector([Image.new("RGB", (9, 9)), b"text"])
    with pytest.raises(ConfigurationError, match="max_iou is 2"):
        ObjectDetector(FixedModel(predictions()), max_iou=2)
