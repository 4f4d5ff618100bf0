"""Training of segmentation networks: loss, evaluation, initial weights."""

from ghostnets.train.segmentation.evaluation import MaskEvaluation, evaluate_masks
from ghostnets.train.segmentation.losses import segmentation_losses

__all__ = ["MaskEvaluation", "evaluate_masks", "segmentation_losses"]
