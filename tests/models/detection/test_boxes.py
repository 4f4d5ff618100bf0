"""Decoding and selection of boxes against their formulas."""

import pytest
import torch

from ghostnets.models.detection import decode_boxes, grid_points, select_boxes


def test_grid_points_follow_levels_row_by_row():
    points, strides = grid_points(17, 40, (8, 16))  # maps of 3 x 5 and 2 x 3
    assert points.tolist()[:6] == [[0, 0], [8, 0], [16, 0], [24, 0], [32, 0], [0, 8]]
    assert points.tolist()[15:] == [[0, 0], [16, 0], [32, 0], [0, 16], [16, 16], [32, 16]]
    assert strides.tolist() == [8.0] * 15 + [16.0] * 6


def test_decode_means_distances_and_clips_to_the_image():
    bins, certain = 4, 50.0
    predictions = torch.zeros(1, 4, 2 + 4 * bins)  # points (0, 0), (8, 0), (0, 8), (8, 8)
    predictions[0, :, 0] = torch.tensor([0.0, 1.0, -1.0, 2.0])
    distances = predictions[0, 3, 2:].view(4, bins)
    distances[0, 1] = distances[1, 0] = distances[2, 1] = certain  # left 1 stride, top 0, right 1
    distances[3, 1] = distances[3, 2] = certain  # bottom: 1.5 strides on average
    boxes, scores = decode_boxes(predictions, (16, 14), (8,), bins=bins)
    assert boxes[0, 3].tolist() == pytest.approx([0, 8, 14, 16])  # right 16 and bottom 20 are clipped
    assert boxes[0, 0].tolist() == pytest.approx([0, 0, 12, 12])  # uniform: 1.5 strides to each side
    assert scores[0, :, 0].tolist() == pytest.approx(torch.tensor([0.0, 1.0, -1.0, 2.0]).sigmoid().tolist())
    assert scores[0, :, 1].tolist() == [0.5] * 4


def test_selection_suppresses_within_a_class_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 10]])
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.05, 0.4], [0.0, 0.7]])
    found = select_boxes(boxes, scores, min_score=0.05, max_iou=0.6)
    assert found.labels.tolist() == [0, 1, 1]  # the second overlaps the first by 0.9; 0.05 is not above 0.05
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.4]))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]]
    assert len(select_boxes(boxes, scores, max_iou=0.95).labels) == 4
    assert select_boxes(boxes, scores, max_boxes=1).scores.tolist() == found.scores.tolist()[:1]
    assert select_boxes(boxes, scores, max_candidates=1).scores.tolist() == found.scores.tolist()[:1]


def test_selection_without_candidates_is_empty():
    found = select_boxes(torch.zeros(3, 4), torch.zeros(3, 2))
    assert found.boxes.shape == (0, 4)
    assert found.labels.dtype == torch.int64
