"""Evaluation of the network of a run, whatever its task."""

from torch import nn

from ghostnets.data import ImageDataset
from ghostnets.models.detection import Detector
from ghostnets.models.segmentation import SegmentationNetwork
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.detection import BoxEvaluation, evaluate_boxes
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.evaluation import Evaluation, evaluate
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.multi_label import MultiLabelEvaluation, evaluate_multi_label
from ghostnets.train.segmentation import MaskEvaluation, evaluate_masks

__all__ = ["evaluate_images"]


def evaluate_images(
    model: nn.Module,
    images: ImageDataset,
    preprocessing: Preprocessing | IdentityPreprocessing,
    class_names: tuple[str, ...],
    *,
    distributed: DistributedContext,
) -> Evaluation | MultiLabelEvaluation | BoxEvaluation | MaskEvaluation:
    """Evaluate with the function for the kind of network and labels: boxes, masks, several labels, or one."""
    if isinstance(model, Detector):
        assert isinstance(preprocessing, Preprocessing)
        return evaluate_boxes(model, images, preprocessing, class_names, distributed=distributed)
    if isinstance(model, SegmentationNetwork):
        assert isinstance(preprocessing, Preprocessing)
        return evaluate_masks(model, images, preprocessing, class_names, distributed=distributed)
    run = evaluate if images.labels.ndim == 1 else evaluate_multi_label
    return run(model, images, preprocessing, class_names, distributed=distributed)
