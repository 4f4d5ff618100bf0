"""Postprocessing of a detector's predictions: points, box decoding, non-maximum suppression."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Detections", "decode_boxes", "grid_points", "select_boxes"]


class Detections(NamedTuple):
    """Detections of one image, highest score first."""

    boxes: Tensor  # (D, 4), x_min, y_min, x_max, y_max in pixels
    scores: Tensor  # (D,), in [0, 1]
    labels: Tensor  # (D,), int64, class indices


def grid_points(
    height: int, width: int, strides: Sequence[int], *, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the point of each prediction: the upper left corner of a pixel of a map, as in NanoDet-Plus.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        strides: Strides of the levels; the map of a level has ceil(height / stride) rows.
        device: Device of the returned tensors.

    Returns:
        Positions x, y in pixels of the image, (P, 2), and strides of the points, (P,), both float32.
    """
    points, sizes = [], []
    for stride in strides:
        y, x = torch.meshgrid(
            torch.arange(-(-height // stride), device=device),
            torch.arange(-(-width // stride), device=device),
            indexing="ij",
        )
        points.append(torch.stack([x, y], dim=-1).reshape(-1, 2) * stride)
        sizes.append(torch.full((x.numel(),), stride, device=device))
    return torch.cat(points).float(), torch.cat(sizes).float()


def decode_boxes(
    predictions: Tensor, size: tuple[int, int], strides: Sequence[int], *, bins: int, clip: bool = True
) -> tuple[Tensor, Tensor]:
    """Decode predictions into boxes and scores.

    The distance from a point to a side of its box is the mean of the predicted distribution, in strides (Generalized
    Focal Loss, equation 6).

    Args:
        predictions: Output of a ``Detector``, (N, P, num_classes + 4 * bins).
        size: Height and width of the images in pixels.
        strides: ``Detector.strides``.
        bins: ``Detector.bins``.
        clip: Whether to clip boxes to the image; clipped sides have no gradient.

    Returns:
        Boxes (N, P, 4), x_min, y_min, x_max, y_max in pixels, and scores (N, P, num_classes) in [0, 1].
    """
    height, width = size
    points, stride = grid_points(height, width, strides, device=predictions.device)
    logits = predictions[..., : -4 * bins]
    distributions = predictions[..., -4 * bins :].unflatten(-1, (4, bins)).softmax(dim=-1)  # (N, P, 4, bins)
    values = torch.arange(bins, device=predictions.device, dtype=distributions.dtype)
    distances = (distributions @ values) * stride[:, None]  # (N, P, 4), left, top, right, bottom in pixels
    boxes = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)
    if not clip:
        return boxes, logits.sigmoid()
    limits = torch.tensor([width, height, width, height], device=boxes.device, dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limits), logits.sigmoid()


def select_boxes(
    boxes: Tensor,
    scores: Tensor,
    *,
    min_score: float = 0.05,
    max_iou: float = 0.6,
    max_boxes: int = 100,
    max_candidates: int = 1000,
) -> Detections:
    """Select the detections of one image by non-maximum suppression within each class.

    Args:
        boxes: Boxes of one image from ``decode_boxes``, (P, 4).
        scores: Scores of these boxes, (P, num_classes).
        min_score: Score that a box must exceed.
        max_iou: IoU with a higher-scoring box of the same class above which a box is dropped.
        max_boxes: Maximum number of detections; those with the highest scores are kept.
        max_candidates: Maximum number of boxes before the suppression; those with the highest scores are kept.
    """
    from torchvision.ops import batched_nms

    point, label = torch.nonzero(scores > min_score, as_tuple=True)
    found = scores[point, label]
    if len(found) > max_candidates:
        found, best = found.topk(max_candidates)
        point, label = point[best], label[best]
    kept = batched_nms(boxes[point].float(), found.float(), label, max_iou)[:max_boxes]
    return Detections(boxes[point[kept]], found[kept], label[kept])
