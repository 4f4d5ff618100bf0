"""Average precision of detections: against pycocotools, its values on fixed cases, and the definition."""

import contextlib
import io

import numpy as np
import pytest

from ghostnets.errors import ConfigurationError
from ghostnets.measure import AveragePrecision, DetectionMetrics, ImageDetections, ImageTruth, box_iou
from ghostnets.measure.detection import count_confusion

CLASSES = 5
# Of pycocotools 2.0.11 for ``random_images(seed)``: mAP, AP50, AP75, small, medium, large, recall.
PYCOCOTOOLS = {
    0: (0.038925, 0.130122, 0.008427, 0.008517, 0.061408, 0.296843, 0.211498),
    4: (0.060678, 0.182439, 0.036625, 0.054702, 0.055718, 0.265435, 0.271755),
}


def random_images(seed: int, images: int = 40) -> list[tuple[ImageDetections, ImageTruth]]:
    """Objects, crowds among them, and detections near them; many equal scores, a class without objects."""
    r, found = np.random.default_rng(seed), []

    def random_boxes(number: int) -> np.ndarray:
        corner = r.uniform(0, 400, (number, 2))
        return np.hstack([corner, corner + np.exp(r.uniform(np.log(8), np.log(250), (number, 2)))])

    for _ in range(images):
        objects = int(r.integers(0, 12))
        boxes, labels, is_crowd = random_boxes(objects), r.integers(0, CLASSES - 1, objects), r.random(objects) < 0.1
        near = np.repeat(boxes, 3, 0) * r.normal(1, 0.06, (3 * objects, 4))
        detected = np.vstack([near, random_boxes(int(r.integers(0, 6)))])
        detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2])
        same = r.random(3 * objects) < 0.85
        guessed = np.where(same, np.repeat(labels, 3), r.integers(0, CLASSES, 3 * objects))
        guessed = np.append(guessed, r.integers(0, CLASSES, len(detected) - 3 * objects)).astype(int)
        scores = np.round(r.random(len(detected)), 2)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * r.uniform(0.5, 1, objects)  # of masks
        found.append((ImageDetections(detected, scores, guessed), ImageTruth(boxes, labels, is_crowd, areas)))
    return found


def metrics_of(images: list[tuple[ImageDetections, ImageTruth]]) -> DetectionMetrics:
    average_precision = AveragePrecision(CLASSES)
    for detections, truth in images:
        average_precision.add(detections, truth)
    return average_precision.metrics()


def pycocotools_metrics(images: list[tuple[ImageDetections, ImageTruth]]) -> tuple[float, ...]:
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for image, (detections, truth) in enumerate(images, start=1):
        rows = zip(truth.boxes, truth.labels, truth.is_crowd, truth.areas, strict=True)
        for box, label, crowd, area in rows:
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label)}
            bbox = [*box[:2], *(box[2:] - box[:2])]
            annotations.append({**annotation, "bbox": bbox, "area": float(area), "iscrowd": int(crowd)})
        for box, score, label in zip(*detections, strict=True):
            bbox = [*box[:2], *(box[2:] - box[:2])]
            results.append({"image_id": image, "category_id": int(label), "bbox": bbox, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        ids = [{"id": index + 1} for index in range(len(images))]
        categories = [{"id": index} for index in range(CLASSES)]
        truth.dataset = {"images": ids, "annotations": annotations, "categories": categories}
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(evaluation.stats[[0, 1, 2, 3, 4, 5, 8]])


@pytest.mark.parametrize("seed", PYCOCOTOOLS)
def test_metrics_have_the_values_of_pycocotools(seed: int):
    metrics = metrics_of(random_images(seed))
    assert metrics[:7] == pytest.approx(PYCOCOTOOLS[seed], abs=1e-6)
    assert metrics.by_class[-1] is metrics.by_class_at_50[-1] is None
    assert np.isnan(metrics.precision[-1]).all()
    assert np.mean(metrics.by_class[:-1]) == pytest.approx(metrics.mean, abs=1e-12)


def test_metrics_match_pycocotools():
    for seed in range(3):
        images = random_images(seed + 10)
        assert metrics_of(images)[:7] == pytest.approx(pycocotools_metrics(images), abs=1e-12)


def test_precision_follows_its_definition():
    average_precision = AveragePrecision(2)
    objects = np.array([[0.0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]])
    found = np.array([[0.0, 0, 100, 100], [600, 0, 700, 100], [200, 0, 300, 72]])  # IoU 1, 0, 0.72
    average_precision.add(
        ImageDetections(found, np.array([0.9, 0.8, 0.7]), np.zeros(3, int)), ImageTruth(objects, np.zeros(3, int))
    )
    metrics = average_precision.metrics()
    # Precision 1 up to a recall of 1/3 (34 of 101), 2/3 up to 2/3 (33 of 101), 0 beyond; above an IoU of 0.72: 34 only.
    low, high = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert metrics.at_50 == pytest.approx(low)
    assert metrics.at_75 == pytest.approx(high)
    assert metrics.mean == pytest.approx((5 * low + 5 * high) / 10)
    assert metrics.recall == pytest.approx((5 * 2 / 3 + 5 * 1 / 3) / 10)
    assert (metrics.small, metrics.by_class[1], metrics.num_objects) == (None, None, (3, 0))


def test_nothing_detected_gives_zero_and_nothing_labelled_none():
    nothing = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    unlabelled = ImageTruth(np.zeros((0, 4)), np.zeros(0, int))
    average_precision = AveragePrecision(1)
    average_precision.add(nothing, unlabelled)
    average_precision.add(ImageDetections(np.ones((1, 4)), np.ones(1), np.zeros(1, int)), unlabelled)
    assert average_precision.metrics()[:7] == (None,) * 7
    average_precision.add(nothing, ImageTruth(np.array([[0.0, 0, 9, 9]]), np.zeros(1, int)))
    assert average_precision.metrics().mean == 0.0


def test_iou_of_boxes_and_crowds():
    boxes, others = np.array([[0, 0, 4, 4], [5, 5, 5, 5]]), np.array([[2, 0, 6, 4], [4, 0, 8, 4], [0, 0, 9, 9]])
    assert box_iou(boxes, others).tolist() == [[8 / 24, 0, 16 / 81], [0, 0, 0]]
    assert box_iou(boxes, others, is_crowd=np.array([True, False, True]))[0].tolist() == [0.5, 0, 1]


def test_invalid_images_raise():
    average_precision = AveragePrecision(2)
    nothing = ImageTruth(np.zeros((0, 4)), np.zeros(0, int))
    with pytest.raises(
        ConfigurationError, match="detections of an image have classes 2 to 2; they must be from 0 to 1"
    ):
        average_precision.add(ImageDetections(np.ones((1, 4)), np.ones(1), np.array([2])), nothing)
    with pytest.raises(ConfigurationError, match="differ in length"):
        average_precision.add(ImageDetections(np.ones((1, 4)), np.ones(2), np.array([1])), nothing)


def test_confusion_has_found_confused_missed_and_false_detections():
    square = np.array([0.0, 0, 10, 10])
    objects = [square, square + 20, square + 40, square + 60, square + 80]
    truth = ImageTruth(np.array(objects), np.array([0, 1, 2, 1, 0]), np.array([False, False, False, False, True]))
    detections = [  # box, score, class
        (objects[0], 0.6, 1),  # object 0 is found by the next one, of its class, so this one has none
        (objects[0], 0.5, 0),
        (objects[1], 0.4, 2),  # object 1, detected as 2
        (objects[2], 0.2, 2),  # too low a score: object 2 is missed
        (objects[3] + 6, 0.9, 1),  # too low an IoU: object 3 is missed, and the detection has no object
        (objects[4], 0.9, 0),  # of a crowd, twice
        (objects[4], 0.8, 0),
        (objects[4] + [0, 0, -8, -8], 0.8, 2),  # within a crowd of another class
    ]
    boxes, scores, labels = (np.array(values) for values in zip(*detections, strict=True))
    expected = [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 2, 1, 0]]
    image = ImageDetections(boxes, scores, labels)
    assert count_confusion(image, truth, 3).tolist() == expected
    nothing = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert count_confusion(nothing, truth, 3)[:, 3].tolist() == [1, 2, 1, 0]
    assert count_confusion(image, ImageTruth(np.zeros((0, 4)), np.zeros(0, int)), 3)[3].tolist() == [3, 2, 2, 0]
    average_precision = AveragePrecision(3)
    for _ in range(2):
        average_precision.add(image, truth)
    assert average_precision.metrics().confusion.tolist() == (2 * np.array(expected)).tolist()
