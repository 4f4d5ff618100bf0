"""Images with labelled boxes: YOLO text, Pascal VOC, COCO JSON; augmentation. Reading labels loads no torch."""

from ghostnets.data.boxes.annotations import BoxAnnotations
from ghostnets.data.boxes.source import BoxSource, open_boxes

__all__ = ["BoxAnnotations", "BoxSource", "open_boxes"]
