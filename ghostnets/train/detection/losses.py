"""Losses of a detector, as in NanoDet-Plus: Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ghostnets.train.detection.assign import Assignment

__all__ = ["DetectionLosses", "detection_losses", "distribution_focal_loss", "quality_focal_loss"]

QUALITY_WEIGHT, BOX_WEIGHT, DISTRIBUTION_WEIGHT = 1.0, 2.0, 0.25


class DetectionLosses(NamedTuple):
    """Weighted losses of a batch; training minimises their sum."""

    quality: Tensor  # (), quality focal loss of the class scores
    box: Tensor  # (), 1 - generalised IoU of the boxes
    distribution: Tensor  # (), distribution focal loss of the distances to the sides

    @property
    def total(self) -> Tensor:
        """Sum of the losses, ()."""
        return self.quality + self.box + self.distribution


def quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``|target - sigmoid(logit)|^2`` times the binary cross-entropy (equation 5, beta = 2), elementwise.

    Args:
        logits: Class logits, of any shape.
        targets: Soft labels in [0, 1], of the same shape: the IoU for the class of an assigned point, else 0.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return entropy * (targets - logits.sigmoid()).square()


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy with the two bins around a distance, weighted by proximity (equation 6): (...).

    Args:
        logits: Logits of the bins, (..., bins).
        targets: Distances in strides, (...), from 0 to below ``bins - 1``.
    """
    left = targets.floor().long()
    weight = targets - left
    log_probabilities = logits.log_softmax(dim=-1)
    lower = log_probabilities.gather(-1, left[..., None])[..., 0]
    upper = log_probabilities.gather(-1, left[..., None] + 1)[..., 0]
    return -(lower * (1 - weight) + upper * weight)


def detection_losses(
    predictions: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    assignments: Sequence[Assignment],
    objects: Sequence[Tensor],
    labels: Sequence[Tensor],
    ignored: Tensor,
    *,
    bins: int,
    sum_over_processes: Callable[[Tensor], Tensor] | None = None,
) -> DetectionLosses:
    """Compute the losses of a batch.

    The class loss is divided by the number of assigned points. The box and distance losses of each assigned point are
    weighted by its highest class score and divided by the sum of these weights. Both divisors are at least 1.

    Where several processes have the images of a batch, the divisors are those of all images, times the share of the
    images that this process has. The mean of the processes' losses, weighted by their images, is that of the batch.

    Args:
        predictions: Output of a ``Detector``, (N, P, C + 4 * bins).
        boxes: Boxes decoded from ``predictions``, not clipped, (N, P, 4).
        points: Positions of the points in pixels, (P, 2).
        strides: Strides of the points in pixels, (P,).
        assignments: Assignment of the points of each image.
        objects: Boxes of the objects of each image, (G, 4).
        labels: Classes of the objects of each image, (G,).
        ignored: Whether a point that is not assigned is left out of the class loss, bool (N, P).
        bins: ``Detector.bins``.
        sum_over_processes: Sum of a tensor over the processes of a batch; None for one process.
    """
    from torchvision.ops import generalized_box_iou_loss

    logits = predictions[..., : -4 * bins]
    assigned = torch.stack([assignment.objects for assignment in assignments])  # (N, P)
    image, point = (assigned >= 0).nonzero(as_tuple=True)  # (A,)
    index = assigned[image, point]
    targets = torch.zeros_like(logits)
    if len(index):
        starts = torch.tensor([0, *map(len, labels)], device=index.device).cumsum(0)[:-1]
        row = starts[image] + index
        target_boxes, classes = torch.cat(list(objects))[row], torch.cat(list(labels))[row]
        ious = torch.stack([assignment.ious for assignment in assignments])[image, point]
        targets[image, point, classes] = ious.to(targets.dtype)
    weights = logits.detach()[image, point].sigmoid().amax(dim=-1)  # (A,)
    sums = torch.stack([weights.new_tensor(len(index)), weights.sum(), weights.new_tensor(len(predictions))])
    if sum_over_processes is not None:
        sums = sum_over_processes(sums)
    num_assigned, divisor = sums[:2].clamp(min=1) * (len(predictions) / sums[2])
    quality = quality_focal_loss(logits, targets)
    quality = quality.masked_fill((ignored & (assigned < 0))[..., None], 0).sum() / num_assigned
    if not len(index):
        zero = predictions[..., -4 * bins :].sum() * 0  # keeps every parameter in the graph
        return DetectionLosses(quality * QUALITY_WEIGHT, zero, zero)
    box = (generalized_box_iou_loss(boxes[image, point], target_boxes) * weights).sum() / divisor
    distances = torch.cat([points[point] - target_boxes[:, :2], target_boxes[:, 2:] - points[point]], dim=1)
    distances = (distances / strides[point, None]).clamp(0, bins - 1 - 0.1)
    distribution = distribution_focal_loss(predictions[image, point, -4 * bins :].unflatten(-1, (4, bins)), distances)
    distribution = (distribution.mean(dim=1) * weights).sum() / divisor
    return DetectionLosses(quality * QUALITY_WEIGHT, box * BOX_WEIGHT, distribution * DISTRIBUTION_WEIGHT)
