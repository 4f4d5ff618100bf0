"""Anchor-free detectors: a backbone of the registry, a Ghost-PAN and a NanoDet-Plus head; decoding and NMS."""

from ghostnets.models.detection.boxes import Detections, decode_boxes, grid_points, select_boxes
from ghostnets.models.detection.detector import Detector, DetectorMaps
from ghostnets.models.detection.pan import GhostPAN
from ghostnets.models.detection.registry import DETECTORS, DetectorVariant, create_detector, list_detectors

__all__ = [
    "DETECTORS",
    "Detections",
    "Detector",
    "DetectorMaps",
    "DetectorVariant",
    "GhostPAN",
    "create_detector",
    "decode_boxes",
    "grid_points",
    "list_detectors",
    "select_boxes",
]
