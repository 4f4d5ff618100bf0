"""Training of detectors: assignment of points to objects, losses, evaluation."""

from ghostnets.train.detection.assign import Assignment, assign_points
from ghostnets.train.detection.evaluation import BoxEvaluation, evaluate_boxes, unpack_targets
from ghostnets.train.detection.losses import (
    DetectionLosses,
    detection_losses,
    distribution_focal_loss,
    quality_focal_loss,
)
from ghostnets.train.detection.supervised import BoxTargets, SupervisedDetector

__all__ = [
    "Assignment",
    "BoxEvaluation",
    "BoxTargets",
    "DetectionLosses",
    "SupervisedDetector",
    "assign_points",
    "detection_losses",
    "distribution_focal_loss",
    "evaluate_boxes",
    "quality_focal_loss",
    "unpack_targets",
]
