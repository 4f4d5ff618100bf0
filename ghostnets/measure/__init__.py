"""Parameters, MACs, profiles and timings of any ``nn.Module``; measures of scores, detections and masks."""

from ghostnets.needs_torch import TORCH  # noqa: F401 - first, so that its absence is one sentence

# isort: split
from ghostnets.measure.box_scores import BoxScores, ClassPrecision
from ghostnets.measure.classification import average_precision, calibration_error, fit_temperature, roc_area
from ghostnets.measure.count import Cost, LayerCost, count
from ghostnets.measure.detection import AveragePrecision, DetectionMetrics, ImageDetections, ImageTruth, box_iou
from ghostnets.measure.limits import MachineLimits, measure_limits
from ghostnets.measure.mask_scores import ClassOverlap, MaskScores
from ghostnets.measure.profile import ModuleProfile, Profile, profile
from ghostnets.measure.proportion import format_accuracy, format_interval, wilson_interval
from ghostnets.measure.segmentation import PixelConfusion
from ghostnets.measure.timing import Runner, Timing, speedup, time_interleaved
from ghostnets.processor import processor_name

__all__ = [
    "AveragePrecision",
    "BoxScores",
    "ClassOverlap",
    "ClassPrecision",
    "Cost",
    "DetectionMetrics",
    "ImageDetections",
    "ImageTruth",
    "LayerCost",
    "MachineLimits",
    "MaskScores",
    "ModuleProfile",
    "PixelConfusion",
    "Profile",
    "Runner",
    "Timing",
    "average_precision",
    "box_iou",
    "calibration_error",
    "count",
    "fit_temperature",
    "format_accuracy",
    "format_interval",
    "measure_limits",
    "processor_name",
    "profile",
    "roc_area",
    "speedup",
    "time_interleaved",
    "wilson_interval",
]
