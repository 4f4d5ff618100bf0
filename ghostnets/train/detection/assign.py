"""Dynamic soft-label assignment of a detector's points to objects.

Lyu, NanoDet-Plus (https://github.com/RangiLyu/nanodet): the optimal-transport assignment of YOLOX (Ge et al., arXiv
2107.08430, SimOTA), with the IoU as a soft label in the cost of classification.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Assignment", "assign_points"]

CANDIDATES = 13  # highest IoUs of an object, whose sum is the number of its points
IOU_WEIGHT = 3.0  # weight of the IoU cost relative to the class cost
IMPOSSIBLE = 1e8  # cost of a point outside the object


class Assignment(NamedTuple):
    """The object assigned to each point of an image."""

    objects: Tensor  # (P,), int64, index of the object; -1 for background
    ious: Tensor  # (P,), IoU of the predicted box with that object; 0 for background


@torch.no_grad()
def assign_points(points: Tensor, boxes: Tensor, scores: Tensor, objects: Tensor, labels: Tensor) -> Assignment:
    """Assign points to the objects of one image.

    Only points within the box of an object can be assigned to it. Each object gets the points with the lowest cost;
    their number is the sum of the object's 13 highest IoUs, at least 1. The cost is the quality focal loss of the
    classes with the IoU as soft label, plus 3 times -log(IoU). A point chosen for several objects is assigned to the
    one with the lowest cost. An object smaller than the finest stride may contain no point, and then has none.

    Args:
        points: Positions x, y in pixels, (P, 2).
        boxes: Predicted boxes, (P, 4), x_min, y_min, x_max, y_max in pixels.
        scores: Predicted scores of the classes in [0, 1], (P, C).
        objects: Boxes of the objects, (G, 4).
        labels: Classes of the objects, (G,), int64.
    """
    from torchvision.ops import box_iou

    assigned = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    ious = torch.zeros(len(points), device=points.device)
    is_inside = _find_inside(points, objects)  # (P, G)
    valid = is_inside.any(dim=1).nonzero().flatten()
    if not len(valid):
        return Assignment(assigned, ious)
    is_inside = is_inside[valid]
    iou = box_iou(boxes[valid].float(), objects)  # (V, G)
    cost = _compute_class_cost(scores[valid].float(), iou, labels) - IOU_WEIGHT * (iou + 1e-7).log()
    cost = cost.masked_fill(~is_inside, IMPOSSIBLE)
    highest = iou.masked_fill(~is_inside, 0).topk(min(CANDIDATES, len(valid)), dim=0).values
    counts = torch.minimum(highest.sum(dim=0).int().clamp(min=1), is_inside.sum(dim=0))  # (G,), 0 without a point
    rank = cost.argsort(dim=0, stable=True).argsort(dim=0, stable=True)  # of each point for each object
    taken = rank < counts
    best = cost.masked_fill(~taken, 2 * IMPOSSIBLE).argmin(dim=1)
    is_assigned = taken.any(dim=1)
    rows = valid[is_assigned]
    assigned[rows] = best[is_assigned]
    ious[rows] = iou[is_assigned, best[is_assigned]]
    return Assignment(assigned, ious)


def _find_inside(points: Tensor, objects: Tensor) -> Tensor:
    """Return whether each point lies within each box, (P, G)."""
    distances = torch.cat([points[:, None] - objects[None, :, :2], objects[None, :, 2:] - points[:, None]], dim=-1)
    return (distances > 0).all(dim=-1)


def _compute_class_cost(scores: Tensor, iou: Tensor, labels: Tensor) -> Tensor:
    """Return the quality focal loss of the scores of each point for each object, (V, G).

    The target is the IoU for the class of the object and 0 for all other classes.
    """
    negative = scores.square() * F.binary_cross_entropy(scores, torch.zeros_like(scores), reduction="none")  # (V, C)
    own = scores[:, labels]  # (V, G)
    positive = (iou - own).square() * F.binary_cross_entropy(own, iou, reduction="none")
    return negative.sum(dim=1, keepdim=True) - negative[:, labels] + positive
