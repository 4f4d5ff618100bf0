"""Loss of a segmentation network."""

from torch import Tensor
from torch.nn import functional as F

from ghostnets.data.masks import IGNORED

__all__ = ["segmentation_losses"]


def segmentation_losses(logits: Tensor, masks: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each image: the mean over its labelled pixels, (B,), in nats; 0 for an image without any.

    Args:
        logits: (B, classes, H, W).
        masks: Label of each pixel, (B, H, W), integers; 255 for ignored pixels.
        label_smoothing: Share of the target spread over all classes.
    """
    losses = F.cross_entropy(
        logits, masks.long(), reduction="none", ignore_index=IGNORED, label_smoothing=label_smoothing
    )
    labelled = (masks != IGNORED).flatten(1).sum(1).clamp(min=1)
    return losses.flatten(1).sum(1) / labelled
