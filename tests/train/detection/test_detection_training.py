"""Assignment and losses against their definitions, and a detector that learns."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou

from ghostnets.errors import ConfigurationError
from ghostnets.measure import AveragePrecision, ImageDetections, ImageTruth
from ghostnets.models.detection import create_detector, decode_boxes, grid_points, select_boxes
from ghostnets.train.detection import (
    Assignment,
    BoxTargets,
    SupervisedDetector,
    assign_points,
    detection_losses,
    distribution_focal_loss,
    quality_focal_loss,
)
from ghostnets.train.detection.supervised import compute_losses


def assign_by_definition(points, boxes, scores, objects, labels) -> list[int]:
    """The assignment, point by point and object by object, in Python's numbers."""

    def iou(a, b):
        sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
        area = sides[0] * sides[1]
        return area / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - area)

    def entropy(p, t):
        return -(t * math.log(p) + (1 - t) * math.log(1 - p))

    taken: dict[int, list[tuple[float, int]]] = {}
    for index, (target, label) in enumerate(zip(objects, labels, strict=True)):
        inside = [i for i, (x, y) in enumerate(points) if target[0] < x < target[2] and target[1] < y < target[3]]
        costs = {}
        for i in inside:
            overlap = iou(boxes[i], target)
            soft = [overlap if c == label else 0.0 for c in range(len(scores[i]))]
            classes = sum(entropy(p, t) * (t - p) ** 2 for p, t in zip(scores[i], soft, strict=True))
            costs[i] = classes - 3 * math.log(overlap + 1e-7)
        highest = sorted((iou(boxes[i], target) for i in inside), reverse=True)[:13]
        count = max(1, int(sum(highest)))
        for i in sorted(costs, key=lambda i: (costs[i], i))[:count]:
            taken.setdefault(i, []).append((costs[i], index))
    return [min(taken[i])[1] if i in taken else -1 for i in range(len(points))]


def test_assignment_follows_its_definition():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        points, _ = grid_points(64, 80, (8, 16))
        corner = torch.rand(6, 2, generator=generator) * 40
        objects = torch.cat([corner, corner + 2 + torch.rand(6, 2, generator=generator) * 36], dim=1)
        labels = torch.randint(0, 3, (6,), generator=generator)
        distances = 1 + torch.rand(len(points), 4, generator=generator) * 24
        boxes = torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)
        scores = torch.rand(len(points), 3, generator=generator) * 0.98 + 0.01
        found = assign_points(points, boxes, scores, objects, labels)
        exact = [tensor.double().tolist() for tensor in (points, boxes, scores, objects)]
        assert found.objects.tolist() == assign_by_definition(*exact, labels.tolist())
        assert len(set(found.objects.tolist())) > 3  # background and several objects
        assert ((found.ious > 0) <= (found.objects >= 0)).all()


def test_objects_without_points_and_images_without_objects_assign_nothing():
    points, _ = grid_points(32, 32, (8,))
    boxes, scores = torch.tensor([[0.0, 0, 9, 9]]).expand(16, 4), torch.full((16, 2), 0.5)
    tiny = torch.tensor([[9.0, 9, 15, 15], [1, 1, 20, 20]])  # no point within the first
    assert set(assign_points(points, boxes, scores, tiny, torch.tensor([0, 1])).objects.tolist()) == {-1, 1}
    for objects in (tiny[:1], tiny[:0]):
        found = assign_points(points, boxes, scores, objects, torch.zeros(len(objects), dtype=torch.int64))
        assert found.objects.eq(-1).all()
        assert not found.ious.any()


def test_quality_focal_loss_follows_equation_5():
    logits, targets = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([0.7, 0.0, 1.0])
    s = logits.sigmoid()
    expected = -((targets - s).abs() ** 2) * ((1 - targets) * (1 - s).log() + targets * s.log())
    torch.testing.assert_close(quality_focal_loss(logits, targets), expected)


def test_distribution_focal_loss_follows_equation_6():
    logits, targets = torch.randn(3, 4, 8), torch.rand(3, 4) * 6.9
    expected = torch.empty(3, 4)
    for row, column in np.ndindex(3, 4):
        target, p = targets[row, column].item(), logits[row, column].softmax(0)
        left = int(target)
        expected[row, column] = -((left + 1 - target) * p[left].log() + (target - left) * p[left + 1].log())
    torch.testing.assert_close(distribution_focal_loss(logits, targets), expected)


def test_losses_of_a_batch_follow_their_definition():
    bins, classes, size, stride_list = 8, 2, (32, 32), (8, 16)
    points, strides = grid_points(*size, stride_list)
    predictions = torch.randn(2, len(points), classes + 4 * bins)
    boxes, scores = decode_boxes(predictions, size, stride_list, bins=bins, clip=False)
    objects = [torch.tensor([[3.0, 3, 30, 25], [5, 5, 15, 31]]), torch.tensor([[1.0, 2, 30, 30]])]
    labels = [torch.tensor([0, 1]), torch.tensor([1])]
    assigned = torch.full((2, len(points)), -1)
    assigned[0, 5], assigned[0, 9], assigned[1, 10] = 0, 1, 0
    ious = torch.where(assigned >= 0, 0.6, 0.0)
    ignored = torch.zeros(2, len(points), dtype=torch.bool)
    ignored[1, 3] = ignored[1, 10] = True  # the second is assigned all the same
    assignments = [Assignment(*pair) for pair in zip(assigned, ious, strict=True)]
    common = (points, strides, assignments, objects, labels, ignored)
    losses = detection_losses(predictions, boxes, *common, bins=bins)
    quality, box, distribution, divisor = 0.0, 0.0, 0.0, 0.0
    for image in range(2):
        for point in range(len(points)):
            target, index = torch.zeros(classes), int(assigned[image, point])
            if index >= 0:
                target[labels[image][index]] = 0.6
                weight = scores[image, point].max()
                divisor += weight
                wanted = objects[image][index]
                box += weight * (1 - generalized_box_iou(boxes[image, point][None], wanted[None])[0, 0])
                distances = torch.cat([points[point] - wanted[:2], wanted[2:] - points[point]]) / strides[point]
                logits = predictions[image, point, classes:].view(4, bins)
                distribution += weight * distribution_focal_loss(logits, distances.clamp(0, 6.9)).mean()
            if index >= 0 or not ignored[image, point]:
                quality += quality_focal_loss(predictions[image, point, :classes], target).sum()
    divisor = max(float(divisor), 1.0)
    assert losses.quality.item() == pytest.approx(float(quality) / 3, rel=1e-4)
    assert losses.box.item() == pytest.approx(2 * float(box) / divisor, rel=1e-4)
    assert losses.distribution.item() == pytest.approx(0.25 * float(distribution) / divisor, rel=1e-4)
    assert losses.total.item() == pytest.approx(sum(map(float, losses)), rel=1e-6)


def test_background_images_and_crowds_train():
    detector = SupervisedDetector(create_detector("ghostdet_050", num_classes=2, channels=8))
    nothing = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    crowd = BoxTargets(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([0]), torch.tensor([True]))
    images = torch.randn(2, 3, 64, 64)
    losses = detector(images, [nothing, nothing])
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert [float(losses.box.detach()), float(losses.distribution.detach())] == [0, 0]
    with torch.no_grad():
        assert detector(images, [crowd, crowd]).quality == 0  # all points lie in the crowd


def make_rectangles(images: int) -> tuple[torch.Tensor, list[BoxTargets]]:
    """Images of two rectangles, whose colour is their class."""
    generator, size = np.random.default_rng(0), 64
    pixels, targets = torch.zeros(images, 3, size, size), []
    colors = torch.tensor([[1.0, -1, 0], [-1, 1, 0.5]])
    for image in pixels:
        boxes, labels = [], []
        for _ in range(2):
            width, height = map(int, generator.integers(16, 34, 2))
            x, y, label = (int(generator.integers(0, high)) for high in (size - width, size - height, 2))
            image[:, y : y + height, x : x + width] = colors[label, :, None, None]
            boxes.append([x, y, x + width, y + height])
            labels.append(label)
        targets.append(BoxTargets(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)))
    return pixels, targets


def test_detector_learns():
    torch.manual_seed(0)
    detector = create_detector("ghostdet_050", num_classes=2, channels=16)
    supervised = SupervisedDetector(detector)
    optimizer = torch.optim.AdamW(supervised.parameters(), 5e-3, weight_decay=0.05)
    images, targets = make_rectangles(2)
    for _ in range(60):
        optimizer.zero_grad()
        supervised(images, targets).total.backward()
        optimizer.step()
    detector.eval()
    average_precision = AveragePrecision(2)
    with torch.no_grad():
        boxes, scores = decode_boxes(detector(images), (64, 64), detector.strides, bins=detector.bins)
    for one_boxes, one_scores, target in zip(boxes, scores, targets, strict=True):
        found = select_boxes(one_boxes, one_scores)
        average_precision.add(
            ImageDetections(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()),
            ImageTruth(target.boxes.numpy(), target.labels.numpy()),
        )
    metrics = average_precision.metrics()
    assert metrics.at_50 > 0.5
    assert metrics.mean > 0.3


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "there are 0 targets for 1 images"),
        ([BoxTargets(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([2]))], "labels 2 to 2; the detector has classes 0"),
        ([BoxTargets(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0, 1]))], r"boxes of shape \(1, 4\) and 2 labels"),
        ([BoxTargets(torch.tensor([[1.0, 1, 9, torch.nan]]), torch.tensor([0]))], "a value that is not finite"),
        ([BoxTargets(torch.tensor([[9.0, 1, 1, 9]]), torch.tensor([0]))], "ends before it starts"),
    ],
)
def test_targets_that_cannot_be_used_are_rejected(targets: list[BoxTargets], message: str):
    detector = create_detector("ghostdet_050", num_classes=2, channels=8)
    predictions = torch.zeros(1, len(grid_points(32, 32, detector.strides)[0]), 2 + 4 * detector.bins)
    with pytest.raises(ConfigurationError, match=message):
        compute_losses(detector, predictions, targets, (32, 32))
