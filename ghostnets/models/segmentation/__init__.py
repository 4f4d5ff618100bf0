"""Semantic segmentation: a backbone of the registry with the head of LR-ASPP or DeepLabV3; a class for each pixel."""

from ghostnets.models.segmentation.registry import SEGMENTERS, SegmenterVariant, create_segmenter, list_segmenters
from ghostnets.models.segmentation.segmenter import SegmentationNetwork

__all__ = ["SEGMENTERS", "SegmentationNetwork", "SegmenterVariant", "create_segmenter", "list_segmenters"]
