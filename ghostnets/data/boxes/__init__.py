"""Images with labelled boxes: YOLO, Pascal VOC and COCO; augmentation. Reading labels does not import torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.data.boxes.annotations import BoxAnnotations
    from ghostnets.data.boxes.augment import BoxAugmentation, BoxSample
    from ghostnets.data.boxes.batch_augment import BoxBatchAugmentation
    from ghostnets.data.boxes.folder import BoxFolder
    from ghostnets.data.boxes.source import BoxSource, find_box_layout, open_boxes

__all__ = [
    "BoxAnnotations",
    "BoxAugmentation",
    "BoxBatchAugmentation",
    "BoxFolder",
    "BoxSample",
    "BoxSource",
    "find_box_layout",
    "open_boxes",
]

_MODULES = {
    "BoxAnnotations": "annotations",
    "BoxAugmentation": "augment",
    "BoxBatchAugmentation": "batch_augment",
    "BoxFolder": "folder",
    "BoxSample": "augment",
    "BoxSource": "source",
    "find_box_layout": "source",
    "open_boxes": "source",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
